#!/usr/bin/env bash
# One prompt under six descriptions.
#
# Usage: deploy/study/nuance.sh DATA
set -euo pipefail
# shellcheck source=deploy/study/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

"$T2L" analyse nuance "$SHIPPED" --prompt "hot" \
    --description "Give a word with the opposite meaning." \
    --description "Give a word with the same meaning." \
    --description "Translate the English word into Spanish." \
    --description "Translate the English word into French." \
    --description "Write the word in capital letters." \
    --description "Write the first letter of the word."
