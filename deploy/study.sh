#!/usr/bin/env bash
# The study, experiment by experiment, as the commands that made docs/results.md.
#
#   deploy/study.sh DATA [EXPERIMENT ...]
#
# DATA holds tasks.train.jsonl.gz, tasks.unseen.jsonl.gz and benchmarks/. Experiments; none named means all
# but the first two. Each trains the baselines that it needs and nobody has trained yet, and reads the
# hypernetworks from checkpoints/:
#
#   train            L; from what it writes M and S, which then go on through the base model
#   ship             put those three into checkpoints/
#   main             unseen tasks: every baseline, L, M and S, and their controls
#   oracles          training tasks' held-out instances: L against a LoRA trained on the task itself
#   benchmarks       the ten benchmarks
#   compression      a library of LoRAs in one network of each size
#   onwards          L and a multi-task LoRA in its place, from one start for the same time
#   relations        both on from there, with tasks of public word data beside the others
#   levers           what contrast, learning rates, sampling, families and a wider latent do, in minutes each
#   tasks            unseen tasks: 16, 64, 128 or all training tasks, at equal budget; and beside them
#   reconstruction     a network that learnt the library's weights instead of the tasks
#   encoder            the base model's own last-token state instead of a sentence encoder
#   source             definitions alone instead of all descriptions
#   robustness map flops nuance
#
# Everything lands in runs/study and is taken up where it stopped: run the same line again. A run of one
# thread makes the best of a core, so two experiments side by side are faster than one after the other.
set -euo pipefail
cd "$(dirname "$0")/.."
T2L=${T2L:-.venv/bin/t2l}
OUT=${OUT:-runs/study}
DATA=${1:?"usage: deploy/study.sh DATA [EXPERIMENT ...]"}
shift
TRAIN=$DATA/tasks.train.jsonl.gz
UNSEEN=$DATA/tasks.unseen.jsonl.gz
DERIVED=$OUT/derived.jsonl.gz
CONFIGS=hypernet/configs
SHIPPED=checkpoints/smollm2-135m
# What to go on from. In docs/results.md it was the first L, which `train` makes anew.
START=${START:-$SHIPPED}
# Short tasks in which the input alone does not say what to do: the library that is compressed.
COMPRESSED=fv_antonym,fv_capitalize,fv_country_capital,fv_english_spanish,fv_singular_plural,fv_animal_v_object_3,fv_choose_first_of_5,fv_color_v_animal_3,fv_lowercase_last_letter
# Those and others like them, and some short tasks of the other kind: 84 in all.
LIBRARY='fv_adjective*,fv_alphabetically*,fv_animal*,fv_antonym,fv_cap*,fv_choose*,fv_color*,fv_concept*,fv_conll*,fv_country*,fv_english*,fv_fruit*,fv_l*,fv_n*,fv_o*,fv_p*,fv_s*,fv_v*,fv_w*,ii_*,lol_1413,lol_833,lol_645,lol_1614,lol_639,lol_1713,lol_132,lol_1293,lol_1744,lol_321,lol_670,lol_875,lol_009,lol_041,lol_898,lol_050,lol_1339,lol_897,lol_1317,lol_1483,lol_1508,lol_1482,lol_227,lol_042,lol_444,lol_1447,lol_922'

: "${RECON_STEPS:=400}" "${DISTILL_STEPS_M:=1000}" "${DISTILL_STEPS_S:=600}" "${EXAMPLES:=20}" "${MANY_EXAMPLES:=100}" "${FEW_EXAMPLES:=8}" "${LABEL_EXAMPLES:=50}" "${LONG_EXAMPLES:=10}" "${THREADS:=1}"

# A finished run has a mark; an unfinished one goes on.
train() {
    local method=$1 folder=$2
    shift 2
    [ -e "$folder/done" ] && return
    local resume=()
    [ -e "$folder/state.pt" ] && resume=(--resume)
    "$T2L" train "$method" --out "$folder" --threads "$THREADS" "${resume[@]}" "$@"
    touch "$folder/done"
}

# Later options win: some experiments ask less.
evaluate() {
    local checkpoint=$1 name=$2 out=$3
    shift 3
    "$T2L" eval "$checkpoint" --name "$name" --out "$OUT/$out" --limit "$EXAMPLES" "$@"
}

derived() {
    [ -e "$DERIVED" ] || "$T2L" tasks derive --tasks "$TRAIN" --exclude "$UNSEEN" --out "$DERIVED"
}

library() {
    "$T2L" train oracles --tasks "$TRAIN" --only "$LIBRARY" --config $CONFIGS/oracle.yaml --out "$OUT/library" --threads "$THREADS"
}

experiment_L() {
    derived
    train sft "$OUT/L" --tasks "$TRAIN" --tasks "$DERIVED" --config $CONFIGS/l-sft.yaml
}

# The small variants learn from what L writes, then from the base model.
experiment_small_variants() {
    for variant in M S; do
        local config=$CONFIGS/${variant,}-sft.yaml steps=DISTILL_STEPS_$variant
        train distill "$OUT/$variant-distilled" --teacher "$OUT/L/best" --tasks "$TRAIN" --tasks "$DERIVED" \
            --variant $variant --steps "${!steps}"
        train sft "$OUT/$variant" --start "$OUT/$variant-distilled/best" --tasks "$TRAIN" --tasks "$DERIVED" --config "$config"
    done
}

# L three times: on given and derived tasks, on with wider families, on with public word data.
experiment_train() {
    experiment_L
    START=$OUT/L/best
    with_relations sft L
    experiment_small_variants
}

experiment_ship() {
    for variant in L M S; do
        local suffix=-${variant,}
        [ $variant = L ] && suffix=
        local from=$OUT/$variant/best
        [ $variant = L ] && from=$OUT/relations/L/last
        install -D -m 644 -t "$SHIPPED$suffix" "$from"/{config.json,hypernet.safetensors}
    done
}

baselines() {
    derived
    relations
    library
    train multitask "$OUT/multitask" --tasks "$TRAIN" --tasks "$DERIVED" --config $CONFIGS/multitask.yaml
    train sft "$OUT/hyperdecoder" --tasks "$TRAIN" --tasks "$DERIVED" --config $CONFIGS/hyperdecoder.yaml
}

experiment_main() {
    baselines
    for variant in "" -m -s; do
        evaluate "$SHIPPED$variant" "$(basename "$SHIPPED$variant")" main --tasks "$UNSEEN" --trained "$TRAIN" --trained "$DERIVED" \
            --trained "$OUT/lexical.jsonl.gz" --multitask "$OUT/multitask/best" --library "$OUT/library" --hyperdecoder "$OUT/hyperdecoder/best"
    done
    "$T2L" report "$OUT/main" --out "$OUT/main/report"
}

experiment_oracles() {
    baselines
    evaluate "$SHIPPED" L oracles --tasks "$TRAIN" --only 'fv_*,ii_*' --trained "$DERIVED" --trained "$OUT/lexical.jsonl.gz" --instances held-out --limit 10 \
        --oracles "$OUT/library" --multitask "$OUT/multitask/best" --conditions base,prompted,multitask,oracle,matched,mismatched
    "$T2L" report "$OUT/oracles" --out "$OUT/oracles/report"
}

# Long answers take a hundred times as long as labels, so fewer of them are asked for.
experiment_benchmarks() {
    baselines
    local only examples labels=arc_challenge,arc_easy,boolq,hellaswag,openbookqa,piqa,winogrande
    for variant in "" -m -s; do
        for part in "$labels $LABEL_EXAMPLES" "gsm8k,humaneval,mbpp $LONG_EXAMPLES"; do
            read -r only examples <<<"$part"
            evaluate "$SHIPPED$variant" "$(basename "$SHIPPED$variant")" benchmarks --benchmarks "$DATA/benchmarks" --only "$only" \
                --limit "$examples" --multitask "$OUT/multitask/best" --library "$OUT/library" --hyperdecoder "$OUT/hyperdecoder/best"
        done
    done
    "$T2L" report "$OUT/benchmarks" --out "$OUT/benchmarks/report"
}

reconstruct() {
    local name=$1 variant=$2 target=$3
    shift 3
    train reconstruction "$OUT/$name" --library "$OUT/library" --tasks "$TRAIN" --variant "$variant" --target "$target" \
        --steps "$RECON_STEPS" "$@"
}

# How much of nine oracles survives in one network of each size, on instances that nobody trained on.
experiment_compression() {
    library
    for target in factors delta_w; do
        for variant in L M S; do
            local run=recon-$variant-$target
            reconstruct "$run" $variant $target --only "$COMPRESSED"
            evaluate "$OUT/$run/best" "$run" compression --tasks "$TRAIN" --only "$COMPRESSED" --instances held-out \
                --oracles "$OUT/library" --conditions base,oracle,training
        done
    done
    "$T2L" analyse compression "$OUT"/recon-[LMS]-* --results "$OUT/compression" --out "$OUT/compression/report"
}

# A method, and what its run is called.
onwards() {
    derived
    train "$1" "$OUT/onwards/$2" --tasks "$TRAIN" --tasks "$DERIVED" --config $CONFIGS/continue.yaml --start "$START"
}

# Both go on from what L knows, so neither lacks training that the other had.
experiment_onwards() {
    onwards sft L
    onwards multitask multitask
    for checkpoint in "$OUT/onwards/L/last" "$START"; do
        "$T2L" eval "$checkpoint" --out "$OUT/onwards/eval" --limit "$EXAMPLES" --tasks "$UNSEEN" --trained "$TRAIN" --trained "$DERIVED" \
            --multitask "$OUT/onwards/multitask/best" --conditions copy,prompted,multitask,matched
    done
    "$T2L" report "$OUT/onwards/eval" --out "$OUT/onwards/report"
}

# Words, numbers, places and dates: what given tasks hold few relations of.
relations() {
    local out=$OUT/lexical.jsonl.gz
    [ -e "$out" ] || "$T2L" tasks relate --tasks "$TRAIN" --exclude "$UNSEEN" --out "$out"
}

# The same, on from the L of `onwards`.
with_relations() {
    onwards sft L
    relations
    train "$1" "$OUT/relations/$2" --tasks "$TRAIN" --tasks "$DERIVED" --tasks "$OUT/lexical.jsonl.gz" \
        --config $CONFIGS/lexical.yaml --start "$OUT/onwards/L/last"
}

experiment_relations() {
    with_relations sft L
    with_relations multitask multitask
    local name checkpoint asked=(--tasks "$UNSEEN" --trained "$TRAIN" --trained "$DERIVED" --trained "$OUT/lexical.jsonl.gz")
    asked+=(--multitask "$OUT/relations/multitask/best")
    for name in relations onwards start; do
        checkpoint=$OUT/$name/L/last
        [ $name != start ] || checkpoint=$START
        evaluate "$checkpoint" "$name" relations/eval "${asked[@]}"
        evaluate "$checkpoint" "$name" relations/eval "${asked[@]}" --limit "$MANY_EXAMPLES" --only 'fv_*,ii_*' \
            --conditions multitask,matched
    done
    "$T2L" report "$OUT/relations/eval" --out "$OUT/relations/report"
}

# One thing changed at a time, most of them onwards from a trained L; what counts is the log of each run.
experiment_levers() {
    derived
    local on=(--start "$START")
    lever control "${on[@]}"
    lever contrast "${on[@]}" --set contrast=0.5
    lever rate-1e-4 "${on[@]}" --set learning_rate=1e-4
    lever rate-1e-3 "${on[@]}" --set learning_rate=1e-3
    lever derived-70 "${on[@]}" --set derived_share=0.7
    lever uniform "${on[@]}" --set short_task_preference=0
    lever new-128 --set learning_rate=1e-3
    lever new-256 --set learning_rate=1e-3 --set latent_size=256
}

lever() {
    local name=$1
    shift
    train sft "$OUT/levers/$name" --tasks "$TRAIN" --tasks "$DERIVED" --config $CONFIGS/ablations.yaml "$@"
}

# Small runs meet in one folder, so that each is compared with every other on the same questions.
compare() {
    local run=$1
    shift
    evaluate "$OUT/$run/best" "$run" comparisons --tasks "$UNSEEN" --trained "$TRAIN" --limit "$FEW_EXAMPLES" \
        --conditions matched,mismatched "$@"
    "$T2L" report "$OUT/comparisons" --out "$OUT/comparisons/report"
}

# The same number of steps on ever more tasks.
experiment_tasks() {
    for count in 16 64 128 all; do
        local choice=()
        [ $count = all ] || choice=(--count $count)
        train sft "$OUT/tasks-$count" --tasks "$TRAIN" "${choice[@]}" --config $CONFIGS/small.yaml
    done
    for count in 16 64 128 all; do compare tasks-$count; done
}

# What reconstruction of the whole library gives on unseen tasks, beside supervised fine-tuning.
experiment_reconstruction() {
    library
    reconstruct recon-all L factors
    compare recon-all
}

experiment_encoder() {
    train sft "$OUT/encoder-base-model" --tasks "$TRAIN" --config $CONFIGS/small.yaml --encoder base-model
    compare encoder-base-model --encoder base-model
}

experiment_source() {
    train sft "$OUT/source-definitions" --tasks "$TRAIN" --config $CONFIGS/definitions.yaml
    compare source-definitions
}

experiment_robustness() {
    derived
    relations
    "$T2L" analyse robustness "$SHIPPED" --tasks "$UNSEEN" --trained "$TRAIN" --trained "$DERIVED" --trained "$OUT/lexical.jsonl.gz" --limit 4 --out "$OUT/robustness"
}

experiment_map() {
    "$T2L" analyse map "$SHIPPED" --tasks "$TRAIN" --out "$OUT/map/training"
    "$T2L" analyse map "$SHIPPED" --tasks "$UNSEEN" --out "$OUT/map/unseen"
}

experiment_flops() {
    "$T2L" analyse flops "$SHIPPED"
}

experiment_nuance() {
    "$T2L" analyse nuance "$SHIPPED" --prompt "hot" \
        --description "Give a word with the opposite meaning." --description "Give a word with the same meaning." \
        --description "Translate the English word into Spanish." --description "Translate the English word into French." \
        --description "Write the word in capital letters." --description "Write the first letter of the word."
}

mkdir -p "$OUT"
[ $# -gt 0 ] || set -- main oracles benchmarks compression onwards relations levers tasks reconstruction encoder source robustness map flops nuance
for name in "$@"; do
    echo "== $name"
    "experiment_$name"
done
