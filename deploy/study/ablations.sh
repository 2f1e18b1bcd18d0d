#!/usr/bin/env bash
# One change at a time, in runs of minutes. Most continue from START. The result is the log of each run.
#
# START is a checkpoint (default: the shipped one).
#
# Usage: deploy/study/ablations.sh DATA
set -euo pipefail
# shellcheck source=deploy/study/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# ablation NAME [OPTION ...]
ablation() {
    local name=$1
    shift
    train sft "$OUT/ablations/$name" --tasks "$TRAIN" --tasks "$SYNTHETIC" --config $CONFIGS/ablations.yaml "$@"
}

synthetic_tasks
ablation control --start "$START"
ablation contrast --start "$START" --set contrast=0.5
ablation rate-1e-4 --start "$START" --set learning_rate=1e-4
ablation rate-1e-3 --start "$START" --set learning_rate=1e-3
ablation synthetic-70 --start "$START" --set derived_share=0.7
ablation uniform --start "$START" --set short_task_preference=0
ablation scratch-128 --set learning_rate=1e-3
ablation scratch-256 --set learning_rate=1e-3 --set latent_size=256
