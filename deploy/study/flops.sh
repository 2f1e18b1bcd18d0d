#!/usr/bin/env bash
# FLOPs of an answer with a generated adapter, and with examples in the prompt.
#
# Usage: deploy/study/flops.sh DATA
set -euo pipefail
# shellcheck source=deploy/study/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

"$T2L" analyse flops "$SHIPPED"
