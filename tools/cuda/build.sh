#!/bin/sh
# Builds the library for CPU and NVIDIA GPUs, with an installed CUDA 13 toolkit or, where there is none, one that toolkit.sh
# assembles; then loads it and checks it, see verify.py. No GPU is needed. 20 to 30 minutes of one processor the first time.
#
#     tools/cuda/build.sh [cuda|cudnn]
set -eu
cd "$(dirname "$0")/../.."
feature=${1:-cuda}
if [ -z "${CUDA_HOME-}${CUDA_PATH-}${NVCC-}" ] && ! command -v nvcc >/dev/null && ! [ -x /usr/local/cuda/bin/nvcc ]; then
    eval "$(tools/cuda/toolkit.sh)"
fi
cargo build --release --locked --features "$feature"
python3 tools/cuda/verify.py "${CARGO_TARGET_DIR:-target}/release/libsitter.so" "$feature"
