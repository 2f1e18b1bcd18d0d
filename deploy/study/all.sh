#!/usr/bin/env bash
# Every experiment except train.sh and publish.sh, one after the other.
#
# Usage: deploy/study/all.sh DATA
set -euo pipefail
# shellcheck source=deploy/study/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

for name in main oracles benchmarks compression continue lexical mixed ablations tasks reconstruction encoder source \
    robustness map flops nuance; do
    echo "== $name"
    "$STUDY/$name.sh" "$DATA"
done
