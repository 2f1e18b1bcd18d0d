#!/usr/bin/env bash
# Maps of description embeddings and generated adapters, of training tasks and unseen tasks.
#
# Usage: deploy/study/map.sh DATA
set -euo pipefail
# shellcheck source=deploy/study/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

"$T2L" analyse map "$SHIPPED" --tasks "$TRAIN" --out "$OUT/map/training"
"$T2L" analyse map "$SHIPPED" --tasks "$UNSEEN" --out "$OUT/map/unseen"
