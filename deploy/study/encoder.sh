#!/usr/bin/env bash
# Unseen tasks with the base model's own last-token state as description embedding.
#
# Usage: deploy/study/encoder.sh DATA
set -euo pipefail
# shellcheck source=deploy/study/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

train sft "$OUT/encoder-base-model" --tasks "$TRAIN" --config $CONFIGS/small.yaml --encoder base-model
compare encoder-base-model --encoder base-model
