#!/bin/sh
# Type-checks and lints the code of `--features cudnn`, which includes `cuda`, with no CUDA toolkit. It proves nothing about
# kernels or linking: that is tools/cuda/build.sh. What it compiles lies apart (in target/cuda-check) and must never be linked.
set -eu
cd "$(dirname "$0")/../.."
tools=$PWD/tools/cuda
target=${CARGO_TARGET_DIR:-target}
# Nothing of a toolkit that may be installed.
unset CUDA_HOME CUDA_PATH NVCC NVCC_CCBIN
PATH=$tools/fake:$PATH CARGO_TARGET_DIR=$target/cuda-check \
    cargo --config 'profile.dev.package."*".opt-level=0' clippy --locked --lib --test null_gpu --features cudnn -- -D warnings
"$tools/symbols.py" --check
