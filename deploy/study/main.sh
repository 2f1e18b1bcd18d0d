#!/usr/bin/env bash
# Unseen tasks: the checkpoints L, M and S with their controls, beside every baseline.
#
# Trains the baselines first.
#
# Usage: deploy/study/main.sh DATA
set -euo pipefail
# shellcheck source=deploy/study/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

baselines
for variant in "" -m -s; do
    evaluate "$SHIPPED$variant" "$(basename "$SHIPPED$variant")" "$OUT/main" --tasks "$UNSEEN" "${TRAINED[@]}" \
        --multitask "$OUT/multitask/best" --library "$LIBRARY" --hyperdecoder "$OUT/hyperdecoder/best"
done
report "$OUT/main"
