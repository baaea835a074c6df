#!/usr/bin/env bash
# Makes what is published from this machine: the crate, a Python wheel and an npm package with the library inside. Says how large
# they are, installs wheel and package where nothing else is, and has each tell the story.
#
#     tools/release.sh OUT [--allow-dirty]
#
# Needs Rust, Python with venv, Node with npm; some minutes. Nothing is uploaded. The wheel's tag names the system that it was made
# on; `auditwheel repair` gives it the one that an index takes.
set -euo pipefail
out=${1:?usage: tools/release.sh OUT [--allow-dirty]}
shift
mkdir -p "$out"
out=$(cd "$out" && pwd)
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
step() { printf '\n== %s\n' "$*"; }
# The packages must find the library that is in them.
unset SITTER_LIBRARY SITTER_PREBUILT_LIBRARY SITTER_FEATURES
SITTER_COMMIT=${SITTER_COMMIT:-$(git rev-parse HEAD 2>/dev/null || echo unknown)}
export SITTER_COMMIT

step versions
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
node_version=$(sed -n 's/^ *"version": "\(.*\)",$/\1/p' bindings/node/package.json)
[ "$version" = "$node_version" ] || { echo "Cargo.toml says $version, bindings/node/package.json $node_version"; exit 1; }
echo "$version, commit $SITTER_COMMIT"

step wheel
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/build"
"$work/build/bin/python" -m pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir "$out" ./bindings/python
wheel=$(ls "$out"/sitter-"$version"-py3-none-*.whl)

step "npm package"
# Its `prepare` builds the library and puts it into the package.
(cd bindings/node && npm pack --pack-destination "$out" --foreground-scripts --loglevel=error >"$work/npm.log") ||
    { cat "$work/npm.log"; exit 1; }
package=$out/sitter-$version.tgz
tar tzf "$package" | grep '^package/native/' || { cat "$work/npm.log"; echo "$package holds no library"; exit 1; }

step crate
tools/crate.sh "$out" "$@"

step "the wheel in a new environment"
python3 -m venv "$work/python"
"$work/python/bin/python" -m pip --disable-pip-version-check install --quiet "$wheel"
mkdir "$work/drawn"
(cd "$work/drawn" && "$work/python/bin/python" "$root/examples/python/story.py")
test -s "$work/drawn/fox-0.png"

step "the npm package in an empty project"
mkdir "$work/project"
cd "$work/project"
echo '{ "private": true, "type": "module" }' >package.json
npm install --no-audit --no-fund --loglevel=error "$package"
cp "$root/examples/node/story.mjs" .
cp -r "$root/assets/subjects/fox" pictures
node story.mjs embedded: 0 . pictures | tail -n 1
test -s fox.png

step "made, with sizes in bytes"
cd "$out"
wc -c "$(basename "$wheel")" "sitter-$version.tgz" "sitter-$version.crate" | sed '/total$/d'
