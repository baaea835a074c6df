#!/bin/sh
# Installs what cargo built, for programs in C and C++ on Linux: libraries, headers, CMake package, pkg-config file.
#
#     cargo build --release && bindings/cpp/install.sh PREFIX [FOLDER_WITH_THE_LIBRARIES]
#
# Distributors rather use cargo-c: cargo cinstall --release --prefix PREFIX
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "${1:?usage: install.sh PREFIX [FOLDER_WITH_THE_LIBRARIES]}"
prefix=$(cd "$1" && pwd)
built=${2:-$root/target/release}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml" | head -n 1)

mkdir -p "$prefix/include/sitter-1" "$prefix/lib/pkgconfig" "$prefix/share/cmake/sitter"
install -m 755 "$built/libsitter.so" "$prefix/lib/libsitter.so.1"
ln -sf libsitter.so.1 "$prefix/lib/libsitter.so"
if [ -f "$built/libsitter.a" ]; then
    install -m 644 "$built/libsitter.a" "$prefix/lib"
fi
install -m 644 "$root/include/sitter.h" "$root/include/sitter.hpp" "$prefix/include/sitter-1"
install -m 644 "$root/bindings/cpp/sitterConfig.cmake" "$root/bindings/cpp/sitterConfigVersion.cmake" \
    "$prefix/share/cmake/sitter"
sed -e "s|@prefix@|$prefix|" -e "s|@version@|$version|" "$root/bindings/cpp/sitter.pc.in" > "$prefix/lib/pkgconfig/sitter.pc"
