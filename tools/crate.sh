#!/usr/bin/env bash
# Packs the crate and those with the models inside it, and sees that all are small enough to be published and work alone: unpacked
# elsewhere, they build, open the model, and tell the story of examples/rust.
#
#     tools/crate.sh OUT [ARGUMENT OF cargo package]...
#
# --allow-dirty packs what is not committed, too. The crates are left in OUT.
set -euo pipefail
out=${1:?usage: tools/crate.sh OUT [ARGUMENT OF cargo package]...}
shift
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
# What the registry takes.
limit=$((10 * 1024 * 1024))

cargo package --workspace --no-verify --locked --quiet "$@"
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
for name in sitter-embedded sitter-embedded-infinity sitter; do
    crate=$name-$version.crate
    cp "$target/package/$crate" "$out"
    size=$(wc -c <"$out/$crate")
    echo "$crate: $size bytes of at most $limit"
    if [ "$size" -gt "$limit" ]; then
        echo "The registry would refuse it; the largest files in it:"
        tar tvzf "$out/$crate" | sort -k 3 -n -r | head -n 10
        exit 1
    fi
done

alone=$(mktemp -d)
trap 'rm -rf "$alone"' EXIT
for name in sitter-embedded sitter-embedded-infinity sitter; do tar xzf "$out/$name-$version.crate" -C "$alone"; done
# Dependencies that are compiled already are not compiled again; nothing of ours is among what is taken, for its path is another.
mkdir -p "$alone/target/release"
for part in .fingerprint build deps; do
    [ ! -d "$target/release/$part" ] || cp -a "$target/release/$part" "$alone/target/release"
done
# The registry does not have the models' crates yet: those beside stand in for them, which the lock file does not know.
(cd "$alone/sitter-$version" && CARGO_TARGET_DIR=$alone/target cargo run --release --offline --quiet \
    --config "patch.crates-io.sitter-embedded.path=\"$alone/sitter-embedded-$version\"" \
    --config "patch.crates-io.sitter-embedded-infinity.path=\"$alone/sitter-embedded-infinity-$version\"" --example story -- embedded: 2 "$alone" >"$alone/said")
test -s "$alone/fox.safetensors" && test -s "$alone/fox.png"
echo "they build alone, and tell the story"
