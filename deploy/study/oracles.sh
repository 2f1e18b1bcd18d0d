#!/usr/bin/env bash
# Held-out instances of training tasks: L beside a LoRA trained on the task itself.
#
# Trains the baselines first.
#
# Usage: deploy/study/oracles.sh DATA
set -euo pipefail
# shellcheck source=deploy/study/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

baselines
evaluate "$SHIPPED" L "$OUT/oracles" --tasks "$TRAIN" --only 'fv_*,ii_*' --instances held-out --limit 10 \
    --trained "$SYNTHETIC" --trained "$LEXICAL" --oracles "$LIBRARY" --multitask "$OUT/multitask/best" \
    --conditions base,prompted,multitask,oracle,matched,mismatched
report "$OUT/oracles"
