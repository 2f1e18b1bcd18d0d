# Settings, helpers and shared runs of the study. Every script in this folder sources this file.
#
# Results go to OUT. A finished training run has a file `done`; an unfinished run and an interrupted
# evaluation continue with the same command. A run uses THREADS cores (one by default), so two
# experiments side by side are faster than one after the other.
# shellcheck shell=bash
set -euo pipefail

usage() {
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
    cat <<TEXT

DATA holds tasks.train.jsonl.gz, tasks.unseen.jsonl.gz and benchmarks/.

Environment: T2L (default .venv/bin/t2l), OUT (default runs/study), THREADS (default 1),
LIMIT (questions per task, default 20).
TEXT
}

case ${1:-} in
-h | --help)
    usage
    exit 0
    ;;
esac
if [ $# -ne 1 ] || [ ! -d "$1" ]; then
    usage >&2
    exit 2
fi
DATA=$(cd "$1" && pwd)
STUDY=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$STUDY/../.."

: "${T2L:=.venv/bin/t2l}" "${OUT:=runs/study}" "${THREADS:=1}" "${LIMIT:=20}"
TRAIN=$DATA/tasks.train.jsonl.gz
UNSEEN=$DATA/tasks.unseen.jsonl.gz
SYNTHETIC=$OUT/synthetic.jsonl.gz
LEXICAL=$OUT/lexical.jsonl.gz
LIBRARY=$OUT/library
CONFIGS=hypernet/configs
: "${SHIPPED:=checkpoints/smollm2-135m}"
# The checkpoint that L-v2 continues from. docs/results.md used L-v1, which train.sh makes.
: "${START:=$SHIPPED}"
# Task files that every shipped checkpoint may have been trained on.
# shellcheck disable=SC2034  # the scripts use it
TRAINED=(--trained "$TRAIN" --trained "$SYNTHETIC" --trained "$LEXICAL")
mkdir -p "$OUT"

# train METHOD FOLDER [OPTION ...]: train unless the run is finished.
train() {
    local method=$1 folder=$2
    shift 2
    [ -e "$folder/done" ] && return
    local resume=()
    [ -e "$folder/state.pt" ] && resume=(--resume)
    "$T2L" train "$method" --out "$folder" --threads "$THREADS" "${resume[@]}" "$@"
    mkdir -p "$folder"
    touch "$folder/done"
}

# evaluate CHECKPOINT NAME FOLDER [OPTION ...]: an option that is given twice counts as given last.
evaluate() {
    local checkpoint=$1 name=$2 folder=$3
    shift 3
    "$T2L" eval "$checkpoint" --name "$name" --out "$folder" --limit "$LIMIT" "$@"
}

# report FOLDER: tables, figures and scores of the results in it.
report() {
    "$T2L" report "$1" --out "$1/report"
}

synthetic_tasks() {
    [ -e "$SYNTHETIC" ] || "$T2L" tasks derive --tasks "$TRAIN" --exclude "$UNSEEN" --out "$SYNTHETIC"
}

lexical_tasks() {
    [ -e "$LEXICAL" ] || "$T2L" tasks relate --tasks "$TRAIN" --exclude "$UNSEEN" --out "$LEXICAL"
}

# Short tasks, mostly description-only, with a LoRA each: 84 in all.
library() {
    local tasks='fv_adjective*,fv_alphabetically*,fv_animal*,fv_antonym,fv_cap*,fv_choose*,fv_color*,fv_concept*'
    tasks+=',fv_conll*,fv_country*,fv_english*,fv_fruit*,fv_l*,fv_n*,fv_o*,fv_p*,fv_s*,fv_v*,fv_w*,ii_*,lol_1413'
    tasks+=',lol_833,lol_645,lol_1614,lol_639,lol_1713,lol_132,lol_1293,lol_1744,lol_321,lol_670,lol_875,lol_009'
    tasks+=',lol_041,lol_898,lol_050,lol_1339,lol_897,lol_1317,lol_1483,lol_1508,lol_1482,lol_227,lol_042,lol_444'
    tasks+=',lol_1447,lol_922'
    "$T2L" train oracles --tasks "$TRAIN" --only "$tasks" --config $CONFIGS/oracle.yaml --out "$LIBRARY" \
        --threads "$THREADS"
}

# The baselines of L-v1: a library of task LoRAs, one multi-task LoRA and a Hyperdecoder.
baselines() {
    synthetic_tasks
    lexical_tasks
    library
    train multitask "$OUT/multitask" --tasks "$TRAIN" --tasks "$SYNTHETIC" --config $CONFIGS/multitask.yaml
    train sft "$OUT/hyperdecoder" --tasks "$TRAIN" --tasks "$SYNTHETIC" --config $CONFIGS/hyperdecoder.yaml
}

# train_v2 METHOD FOLDER: continue from START with wider synthetic tasks. METHOD sft gives L-v2.
train_v2() {
    synthetic_tasks
    train "$1" "$2" --tasks "$TRAIN" --tasks "$SYNTHETIC" --config $CONFIGS/continue.yaml --start "$START"
}

# train_v3 METHOD FOLDER: continue from L-v2 with lexical tasks, too. METHOD sft gives L-v3.
train_v3() {
    train_v2 sft "$OUT/L-v2"
    lexical_tasks
    train "$1" "$2" --tasks "$TRAIN" --tasks "$SYNTHETIC" --tasks "$LEXICAL" --config $CONFIGS/lexical.yaml \
        --start "$OUT/L-v2/last"
}

# reconstruct FOLDER VARIANT TARGET [OPTION ...]: a network that learns the weights of the library.
reconstruct() {
    local folder=$1 variant=$2 target=$3
    shift 3
    library
    train reconstruction "$folder" --library "$LIBRARY" --tasks "$TRAIN" --variant "$variant" --target "$target" \
        --steps "${RECONSTRUCTION_STEPS:-400}" "$@"
}

# compare RUN [OPTION ...]: evaluate a small run beside all others, on the same questions.
compare() {
    local run=$1
    shift
    evaluate "$OUT/$run/best" "$run" "$OUT/comparisons" --tasks "$UNSEEN" --trained "$TRAIN" --limit 8 \
        --conditions matched,mismatched "$@"
    report "$OUT/comparisons"
}
