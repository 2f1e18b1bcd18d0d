#!/usr/bin/env bash
# Unseen tasks after reconstruction of the whole library, instead of supervised fine-tuning.
#
# Trains the library first. RECONSTRUCTION_STEPS are the steps of the network (default 400).
#
# Usage: deploy/study/reconstruction.sh DATA
set -euo pipefail
# shellcheck source=deploy/study/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

reconstruct "$OUT/recon-all" L factors
compare recon-all
