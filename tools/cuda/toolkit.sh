#!/bin/sh
# Assembles a CUDA 13.0 toolkit out of NVIDIA's Python packages: nvcc, its headers, and the runtime as an archive. Enough to
# build Sitter on x86-64 Linux; no GPU, no driver, no root. About 400 MB to fetch. Says how to use it.
#
#     tools/cuda/toolkit.sh [FOLDER]        target/cuda-toolkit without FOLDER
set -eu
folder=${1:-$(dirname "$0")/../../target/cuda-toolkit}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
home=$folder/nvidia/cu13
# Made by the last step below.
if ! [ -e "$home/lib64" ]; then
    python=python3
    if ! $python -m pip --version >/dev/null 2>&1; then
        $python -m venv "$folder/venv"
        python=$folder/venv/bin/python
    fi
    # 13.0 is the oldest version with all parts on PyPI: what it makes runs with the oldest drivers.
    $python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target "$folder" \
        nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-runtime==13.0.96 \
        nvidia-cuda-cccl==13.0.85 nvidia-curand==10.4.0.35 >&2
    "$home/bin/nvcc" --version >&2
    ln -s lib "$home/lib64"
fi
echo "export CUDA_HOME='$home'"
