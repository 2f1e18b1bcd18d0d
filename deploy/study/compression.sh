#!/usr/bin/env bash
# Nine oracles in one network of each size: weight error against performance kept.
#
# Trains the library first. RECONSTRUCTION_STEPS are the steps of each
# network (default 400).
#
# Usage: deploy/study/compression.sh DATA
set -euo pipefail
# shellcheck source=deploy/study/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# Short description-only tasks.
TASKS=fv_antonym,fv_capitalize,fv_country_capital,fv_english_spanish,fv_singular_plural,fv_animal_v_object_3
TASKS+=,fv_choose_first_of_5,fv_color_v_animal_3,fv_lowercase_last_letter

runs=()
for target in factors delta_w; do
    for variant in L M S; do
        run=recon-$variant-$target
        runs+=("$OUT/$run")
        reconstruct "$OUT/$run" $variant $target --only "$TASKS"
        evaluate "$OUT/$run/best" "$run" "$OUT/compression" --tasks "$TRAIN" --only "$TASKS" \
            --instances held-out --oracles "$LIBRARY" --conditions base,oracle,training
    done
done
"$T2L" analyse compression "${runs[@]}" --results "$OUT/compression" --out "$OUT/compression/report"
