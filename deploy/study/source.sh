#!/usr/bin/env bash
# Unseen tasks after training on definitions alone, instead of all descriptions.
#
# Usage: deploy/study/source.sh DATA
set -euo pipefail
# shellcheck source=deploy/study/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

train sft "$OUT/source-definitions" --tasks "$TRAIN" --config $CONFIGS/definitions.yaml
compare source-definitions
