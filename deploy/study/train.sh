#!/usr/bin/env bash
# Train L-v1, L-v2 and L-v3, each from the one before, then M and S from L-v1.
#
# M and S are distilled from L-v1, then trained through the base model.
# M_STEPS and S_STEPS are the steps of distillation (default 1000 and 600).
#
# Usage: deploy/study/train.sh DATA
set -euo pipefail
# shellcheck source=deploy/study/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

synthetic_tasks
train sft "$OUT/L-v1" --tasks "$TRAIN" --tasks "$SYNTHETIC" --config $CONFIGS/l-sft.yaml
START=$OUT/L-v1/best
train_v3 sft "$OUT/L-v3"

# small VARIANT CONFIG STEPS
small() {
    train distill "$OUT/$1-distilled" --teacher "$OUT/L-v1/best" --tasks "$TRAIN" --tasks "$SYNTHETIC" \
        --variant "$1" --steps "$3"
    train sft "$OUT/$1" --start "$OUT/$1-distilled/best" --tasks "$TRAIN" --tasks "$SYNTHETIC" --config "$2"
}
small M $CONFIGS/m-sft.yaml "${M_STEPS:-1000}"
small S $CONFIGS/s-sft.yaml "${S_STEPS:-600}"
