#!/usr/bin/env bash
# L-v3, the shipped checkpoint, with descriptions of falling quality, with four questions per task.
#
# Usage: deploy/study/robustness.sh DATA
set -euo pipefail
# shellcheck source=deploy/study/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

synthetic_tasks
lexical_tasks
"$T2L" analyse robustness "$SHIPPED" --tasks "$UNSEEN" "${TRAINED[@]}" --limit 4 --out "$OUT/robustness"
