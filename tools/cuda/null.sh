#!/bin/sh
# Runs every verb on a pretended GPU, which counts what is asked of it and computes nothing: tests/null_gpu, see docs/cuda.md. Neither a
# GPU nor a CUDA toolkit is needed; with --full an installed toolkit, or the one that toolkit.sh assembles, compiles the kernels.
#
#     tools/cuda/null.sh [--full] [COMMAND...]      COMMAND instead of the tests: in the same surroundings, as `sh` or check.py
set -eu
cd "$(dirname "$0")/../.."
tools=$PWD/tools/cuda
target=${CARGO_TARGET_DIR:-target}/null-gpu
if [ "${1-}" = --full ]; then
    shift
    target=$target-full
    nvcc=${CUDA_HOME:-${CUDA_PATH:-/usr/local/cuda}}/bin/nvcc
    if ! [ -x "$nvcc" ]; then
        eval "$("$tools/toolkit.sh")"
        nvcc=$CUDA_HOME/bin/nvcc
    fi
    export NVCC_FOR_PTX="$nvcc"
fi
unset CUDA_HOME CUDA_PATH NVCC NVCC_CCBIN
mkdir -p "$target/toolkit/bin" "$target/toolkit/lib64" "$target/gpu"
target=$(cd "$target" && pwd)
# A toolkit in which there is nothing to link.
ln -sf "$tools/fake/nvcc" "$target/toolkit/bin/nvcc"
[ -e "$target/toolkit/lib64/libcudart_static.a" ] || ar crs "$target/toolkit/lib64/libcudart_static.a"
# One library under all names: the loader takes them for the same.
gcc -Wall -Wextra -Werror -O1 -shared -fPIC -pthread -o "$target/gpu/libcuda.so.1" tests/null_gpu/gpu.c
for name in libcublas.so.13 libcublasLt.so.13 libcurand.so.10 libnvrtc.so.13; do
    ln -sf libcuda.so.1 "$target/gpu/$name"
done
export PATH="$target/toolkit/bin:$PATH" CARGO_TARGET_DIR="$target" LD_LIBRARY_PATH="$target/gpu"
if [ $# -gt 0 ]; then
    exec "$@"
fi
cargo --config 'profile.dev.package."*".opt-level=0' test --locked --features cuda --test null_gpu
