#!/bin/sh
# Runs fuzz targets one after the other, each for some seconds, from its committed corpus:
#
#     tools/fuzz.sh SECONDS [TARGET...]       all targets if none is named
#
# What libFuzzer adds to the corpus goes to fuzz/found, what it finds to fuzz/artifacts; neither is committed. Needs a nightly
# toolchain and cargo-fuzz. FUZZ_TARGET_DIR says where to build, FUZZ_FLAGS what else `cargo fuzz run` gets.
set -u
cd "$(dirname "$0")/.."
seconds=${1:?usage: tools/fuzz.sh SECONDS [TARGET...]}
shift
[ $# -gt 0 ] || set -- subject safetensors pickle api_sequence picture tokenizer yaml config index
failed=
for target; do
    mkdir -p "fuzz/found/$target"
    echo "== $target"
    # A file of a few kB must not make the parsers ask for hundreds of MB at once, nor think for ten seconds. A picture may:
    # its header tells how large it is, and the limits are in src/picture/read.rs.
    malloc=256
    [ "$target" = picture ] && malloc=1100
    # shellcheck disable=SC2086
    cargo +nightly fuzz run --fuzz-dir fuzz --target-dir "${FUZZ_TARGET_DIR:-fuzz/target}" ${FUZZ_FLAGS:-} "$target" \
        "fuzz/found/$target" "fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -timeout=10 -malloc_limit_mb=$malloc -rss_limit_mb=4096 -print_final_stats=1 \
        || failed="$failed $target"
done
[ -z "$failed" ] || { echo "failed:$failed"; exit 1; }
