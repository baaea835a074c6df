#!/usr/bin/env bash
# Packs the crate, and sees that it is small enough to be published and works alone: unpacked elsewhere, it builds, opens the
# model inside it, and tells the story of examples/rust.
#
#     tools/crate.sh OUT [ARGUMENT OF cargo package]...
#
# --allow-dirty packs what is not committed, too. The crate is left in OUT.
set -euo pipefail
out=${1:?usage: tools/crate.sh OUT [ARGUMENT OF cargo package]...}
shift
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
# What the registry takes.
limit=$((10 * 1024 * 1024))

cargo package --no-verify --locked --quiet "$@"
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
cp "$target/package/sitter-$version.crate" "$out"
size=$(wc -c <"$out/sitter-$version.crate")
echo "sitter-$version.crate: $size bytes of at most $limit"
if [ "$size" -gt "$limit" ]; then
    echo "The registry would refuse it; the largest files in it:"
    tar tvzf "$out/sitter-$version.crate" | sort -k 3 -n -r | head -n 10
    exit 1
fi

alone=$(mktemp -d)
trap 'rm -rf "$alone"' EXIT
tar xzf "$out/sitter-$version.crate" -C "$alone"
# Dependencies that are compiled already are not compiled again; nothing of ours is among what is taken, for its path is another.
mkdir -p "$alone/target/release"
for part in .fingerprint build deps; do
    [ ! -d "$target/release/$part" ] || cp -a "$target/release/$part" "$alone/target/release"
done
(cd "$alone/sitter-$version" && CARGO_TARGET_DIR=$alone/target cargo run --release --locked --quiet --example story -- \
    embedded: 2 "$alone" >"$alone/said")
test -s "$alone/fox.safetensors" && test -s "$alone/fox.png"
echo "it builds alone, and told the story"
