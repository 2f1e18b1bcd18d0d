#!/usr/bin/env bash
# The shipped L under descriptions of falling quality, with four questions per task.
#
# Usage: deploy/study/robustness.sh DATA
set -euo pipefail
# shellcheck source=deploy/study/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

synthetic_tasks
lexical_tasks
"$T2L" analyse robustness "$SHIPPED" --tasks "$UNSEEN" "${TRAINED[@]}" --limit 4 --out "$OUT/robustness"
