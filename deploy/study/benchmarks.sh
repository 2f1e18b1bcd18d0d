#!/usr/bin/env bash
# The ten benchmarks: L, M and S beside every baseline.
#
# Trains the baselines first. A long answer takes a hundred times as long as a label, so benchmarks
# with long answers get fewer questions: LABEL_LIMIT (default 50) and LONG_LIMIT (default 10).
#
# Usage: deploy/study/benchmarks.sh DATA
set -euo pipefail
# shellcheck source=deploy/study/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

LABELS=arc_challenge,arc_easy,boolq,hellaswag,openbookqa,piqa,winogrande

# benchmark CHECKPOINT NAMES LIMIT
benchmark() {
    evaluate "$1" "$(basename "$1")" "$OUT/benchmarks" --benchmarks "$DATA/benchmarks" --only "$2" --limit "$3" \
        --multitask "$OUT/multitask/best" --library "$LIBRARY" --hyperdecoder "$OUT/hyperdecoder/best"
}

baselines
for variant in "" -m -s; do
    benchmark "$SHIPPED$variant" $LABELS "${LABEL_LIMIT:-50}"
    benchmark "$SHIPPED$variant" gsm8k,humaneval,mbpp "${LONG_LIMIT:-10}"
done
report "$OUT/benchmarks"
