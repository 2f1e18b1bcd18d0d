#!/usr/bin/env bash
# Mixed prompts: L and a multi-task LoRA continue from START on the same batches, and are evaluated under each prompt.
#
# DATA also holds tasks.more.train.jsonl.gz, wordings.jsonl.gz and tasks.unseen2.jsonl.gz.
# MINUTES is the length of each training run (default 100).
#
# Usage: deploy/study/mixed.sh DATA
set -euo pipefail
# shellcheck source=deploy/study/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

MORE=$DATA/tasks.more.train.jsonl.gz
UNSEEN2=$DATA/tasks.unseen2.jsonl.gz
# These tasks share no question with either evaluation file. The other experiments' files would.
BUILT=$OUT/mixed/built
for kind in derive relate; do
    [ -e "$BUILT-$kind.jsonl.gz" ] || "$T2L" tasks $kind --tasks "$TRAIN" --exclude "$UNSEEN" --exclude "$UNSEEN2" \
        --out "$BUILT-$kind.jsonl.gz"
done
files=("$TRAIN" "$MORE" "$BUILT-derive.jsonl.gz" "$BUILT-relate.jsonl.gz")
tasks=() trained=()
for file in "${files[@]}"; do
    tasks+=(--tasks "$file")
    trained+=(--trained "$file")
done

for method in sft multitask; do
    train $method "$OUT/mixed/$method" "${tasks[@]}" --descriptions "$DATA/wordings.jsonl.gz" \
        --config $CONFIGS/l-sft-mixed.yaml --minutes "${MINUTES:-100}" --start "$START"
done

for unseen in "$UNSEEN" "$UNSEEN2"; do
    results=$OUT/mixed/$(basename "$unseen" .jsonl.gz)
    evaluate "$OUT/mixed/sft/best" L-mixed "$results" --tasks "$unseen" "${trained[@]}" \
        --multitask "$OUT/mixed/multitask/best"
    evaluate "$START" start "$results" --tasks "$unseen" "${trained[@]}" \
        --conditions matched,matched_prompted,matched_icl
    report "$results"
done
