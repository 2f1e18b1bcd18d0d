#!/usr/bin/env bash
# The study, experiment by experiment, as the commands that made docs/results.md.
#
#   deploy/study.sh DATA [EXPERIMENT ...]
#
# DATA holds tasks.train.jsonl.gz, tasks.unseen.jsonl.gz and benchmarks/. Experiments:
# train main benchmarks compression reconstruction tasks robustness map flops nuance; none
# named means all of them. Everything lands in runs/study and is taken up where it stopped: run the same line again.
# Sizes are for two CPU cores; raise them by environment variables where there is more.
set -euo pipefail
cd "$(dirname "$0")/.."
T2L=${T2L:-.venv/bin/t2l}
OUT=${OUT:-runs/study}
DATA=${1:?"usage: deploy/study.sh DATA [EXPERIMENT ...]"}
shift
TRAIN=$DATA/tasks.train.jsonl.gz
UNSEEN=$DATA/tasks.unseen.jsonl.gz
DERIVED=$OUT/derived.jsonl.gz
SHIPPED=checkpoints
# Short tasks in which the input alone does not say what to do.
LIBRARY_TASKS=fv_antonym,fv_capitalize,fv_country_capital,fv_english_spanish,fv_singular_plural,fv_animal_v_object_3,fv_choose_first_of_5,fv_color_v_animal_3,fv_lowercase_last_letter

: "${SFT_STEPS:=150}" "${SMALL_STEPS:=60}" "${ORACLE_STEPS:=60}" "${RECON_STEPS:=400}" "${DISTILL_STEPS:=300}"
: "${EXAMPLES:=10}" "${BENCHMARK_EXAMPLES:=8}"

# A finished run has a mark; an unfinished one goes on.
train() {
    local method=$1 folder=$2
    shift 2
    [ -e "$folder/done" ] && return
    local resume=()
    [ -e "$folder/state.pt" ] && resume=(--resume)
    "$T2L" train "$method" --out "$folder" "${resume[@]}" "$@"
    touch "$folder/done"
}

derived() {
    [ -e "$DERIVED" ] || "$T2L" tasks derive --tasks "$TRAIN" --exclude "$UNSEEN" --out "$DERIVED"
}

library() {
    "$T2L" train oracles --tasks "$TRAIN" --only "$LIBRARY_TASKS" --out "$OUT/library" --steps "$ORACLE_STEPS"
}

# L, then M and S from what L writes; one LoRA for all tasks; one per task.
experiment_train() {
    derived
    local data=(--tasks "$TRAIN" --tasks "$DERIVED")
    train sft "$OUT/L" "${data[@]}" --config hypernet/configs/l-sft.yaml --steps "$SFT_STEPS"
    for variant in M S; do
        train distill "$OUT/$variant" --teacher "$OUT/L/best" "${data[@]}" --variant $variant --steps "$DISTILL_STEPS"
    done
    train multitask "$OUT/multitask" "${data[@]}" --config hypernet/configs/multitask.yaml --steps "$SMALL_STEPS"
    train sft "$OUT/hyperdecoder" "${data[@]}" --config hypernet/configs/hyperdecoder.yaml --steps "$SMALL_STEPS"
    library
}

experiment_main() {
    for variant in "" -m -s; do
        "$T2L" eval "$SHIPPED/smollm2-135m$variant" --tasks "$UNSEEN" --examples "$EXAMPLES" --out "$OUT/main" \
            --multitask "$OUT/multitask/best" --library "$OUT/library" --hyperdecoder "$OUT/hyperdecoder/best"
    done
    "$T2L" report "$OUT/main" --out "$OUT/main/report"
}

experiment_benchmarks() {
    "$T2L" eval "$SHIPPED/smollm2-135m" --benchmarks "$DATA/benchmarks" --examples "$BENCHMARK_EXAMPLES" \
        --out "$OUT/benchmarks" --multitask "$OUT/multitask/best"
    "$T2L" report "$OUT/benchmarks" --out "$OUT/benchmarks/report"
}

# How much of nine oracles survives in one network of each size, on instances that nobody trained on.
experiment_compression() {
    library
    for target in factors delta_w; do
        for variant in L M S; do
            local run=$OUT/recon-$variant-$target
            train reconstruction "$run" --library "$OUT/library" --tasks "$TRAIN" --variant $variant --target $target --steps "$RECON_STEPS"
            "$T2L" eval "$run/best" --name "recon-$variant-$target" --tasks "$TRAIN" --only "$LIBRARY_TASKS" \
                --instances held-out --examples "$EXAMPLES" --out "$OUT/compression" --oracles "$OUT/library" \
                --conditions base,oracle,training
        done
    done
    "$T2L" analyse compression "$OUT"/recon-* --cells "$OUT/compression" --out "$OUT/compression/report"
}

# Unseen tasks: what reconstruction of a library gives against supervised fine-tuning.
experiment_reconstruction() {
    "$T2L" eval "$OUT/recon-L-factors/best" --name recon-L --tasks "$UNSEEN" --examples "$EXAMPLES" \
        --out "$OUT/main" --conditions matched,mismatched
    "$T2L" report "$OUT/main" --out "$OUT/main/report"
}

# The same number of steps on ever more tasks.
experiment_tasks() {
    for count in 16 64 128 all; do
        local choice=()
        [ $count = all ] || choice=(--count $count)
        train sft "$OUT/tasks-$count" --tasks "$TRAIN" "${choice[@]}" --config hypernet/configs/l-sft.yaml --steps "$SMALL_STEPS"
        "$T2L" eval "$OUT/tasks-$count/best" --name "$count tasks" --tasks "$UNSEEN" --examples "$EXAMPLES" \
            --out "$OUT/tasks" --conditions matched,mismatched
    done
    "$T2L" report "$OUT/tasks" --out "$OUT/tasks/report"
}

experiment_robustness() {
    "$T2L" analyse robustness "$SHIPPED/smollm2-135m" --tasks "$UNSEEN" --examples "$EXAMPLES" --out "$OUT/robustness"
}

experiment_map() {
    "$T2L" analyse map "$SHIPPED/smollm2-135m" --tasks "$TRAIN" --out "$OUT/map"
}

experiment_flops() {
    "$T2L" flops "$SHIPPED/smollm2-135m"
}

experiment_nuance() {
    "$T2L" analyse nuance "$SHIPPED/smollm2-135m" --prompt "hot" \
        --description "Give a word with the opposite meaning." --description "Give a word with the same meaning." \
        --description "Translate the English word into Spanish." --description "Translate the English word into French." \
        --description "Write the word in capital letters." --description "Write the first letter of the word."
}

mkdir -p "$OUT"
for name in "${@:-train main benchmarks compression reconstruction tasks robustness map flops nuance}"; do
    for experiment in $name; do
        echo "== $experiment"
        "experiment_$experiment"
    done
done
