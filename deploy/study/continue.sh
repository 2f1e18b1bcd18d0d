#!/usr/bin/env bash
# L-v2 beside a multi-task LoRA: both continue from START for the same time.
#
# START is a checkpoint (default: the shipped one). The LoRA starts at the LoRA
# nearest to the mean of the adapters of START, so both have had the same training before.
#
# Usage: deploy/study/continue.sh DATA
set -euo pipefail
# shellcheck source=deploy/study/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

train_v2 sft "$OUT/L-v2"
train_v2 multitask "$OUT/multitask-v2"

# evaluate_v2 CHECKPOINT NAME
evaluate_v2() {
    evaluate "$1" "$2" "$OUT/continue" --tasks "$UNSEEN" --trained "$TRAIN" --trained "$SYNTHETIC" \
        --multitask "$OUT/multitask-v2/best" --conditions copy,prompted,multitask,matched
}
evaluate_v2 "$OUT/L-v2/last" L-v2
evaluate_v2 "$START" start
report "$OUT/continue"
