#!/usr/bin/env bash
# L-v3 beside a multi-task LoRA: both continue from L-v2 with lexical tasks for the same time.
#
# Trains L-v2 from START first (default: the shipped checkpoint).
# MANY is the number of questions of each description-only task (default 100).
#
# Usage: deploy/study/lexical.sh DATA
set -euo pipefail
# shellcheck source=deploy/study/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

train_v3 sft "$OUT/L-v3"
train_v3 multitask "$OUT/multitask-v3"

# evaluate_v3 CHECKPOINT NAME
evaluate_v3() {
    local options=(--tasks "$UNSEEN" "${TRAINED[@]}" --multitask "$OUT/multitask-v3/best")
    evaluate "$1" "$2" "$OUT/lexical" "${options[@]}"
    evaluate "$1" "$2" "$OUT/lexical" "${options[@]}" --limit "${MANY:-100}" --only 'fv_*,ii_*' \
        --conditions multitask,matched
}
evaluate_v3 "$OUT/L-v3/last" L-v3
evaluate_v3 "$OUT/L-v2/last" L-v2
evaluate_v3 "$START" start
report "$OUT/lexical"
