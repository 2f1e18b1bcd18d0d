#!/usr/bin/env bash
# Unseen tasks after training on 16, 64, 128 or all tasks, at equal steps.
#
# Usage: deploy/study/tasks.sh DATA
set -euo pipefail
# shellcheck source=deploy/study/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

for count in 16 64 128 all; do
    options=()
    [ $count = all ] || options=(--count "$count")
    train sft "$OUT/tasks-$count" --tasks "$TRAIN" "${options[@]}" --config $CONFIGS/small.yaml
done
for count in 16 64 128 all; do
    compare tasks-$count
done
