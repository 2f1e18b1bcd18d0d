#!/usr/bin/env bash
# Copy L-v3, M and S, as train.sh made them, into checkpoints/.
#
# Usage: deploy/study/publish.sh DATA
set -euo pipefail
# shellcheck source=deploy/study/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# publish RUN FOLDER
publish() {
    install -D -m 644 -t "$2" "$1"/{config.json,hypernet.safetensors}
}
publish "$OUT/L-v3/last" "$SHIPPED"
publish "$OUT/M/best" "$SHIPPED-m"
publish "$OUT/S/best" "$SHIPPED-s"
