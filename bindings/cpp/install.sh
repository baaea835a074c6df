#!/bin/sh
# Installs what cargo built, for programs in C and C++ on Linux: libraries, headers, CMake package, pkg-config file.
#
#     cargo build --release && bindings/cpp/install.sh PREFIX [FOLDER_WITH_THE_LIBRARIES]
#
# Distributors rather use cargo-c: cargo cinstall --release --prefix PREFIX
set -eu
# With it, cd prints where it goes.
unset CDPATH

root=$(cd -- "$(dirname -- "$0")/../.." && pwd)
mkdir -p -- "${1:?usage: install.sh PREFIX [FOLDER_WITH_THE_LIBRARIES]}"
prefix=$(cd -- "$1" && pwd)
built=$(cd -- "${2:-$root/target/release}" && pwd)
number() { sed -n "s/^#define SITTER_ABI_$1 \([0-9]*\)\$/\1/p" "$root/include/sitter.h"; }
version=$(number MAJOR).$(number MINOR).0
major=${version%%.*}
# In sed's replacement these have a meaning; in a .pc file blanks, quotes and backslashes are escaped by a backslash.
for_pc() { printf '%s\n' "$1" | sed -e 's/[\\"'\'' #]/\\&/g' -e 's/[\\&|]/\\&/g'; }

mkdir -p "$prefix/include/sitter-$major" "$prefix/lib/pkgconfig" "$prefix/share/cmake/sitter"
install -m 755 "$built/libsitter.so" "$prefix/lib/libsitter.so.$major"
ln -sf "libsitter.so.$major" "$prefix/lib/libsitter.so"
if [ -f "$built/libsitter.a" ]; then
    install -m 644 "$built/libsitter.a" "$prefix/lib"
fi
install -m 644 "$root/include/sitter.h" "$root/include/sitter.hpp" "$prefix/include/sitter-$major"
install -m 644 "$root/bindings/cpp/sitterConfig.cmake" "$root/bindings/cpp/sitterConfigVersion.cmake" \
    "$prefix/share/cmake/sitter"
sed -e "s|@prefix@|$(for_pc "$prefix")|" -e "s|@version@|$version|" "$root/bindings/cpp/sitter.pc.in" \
    > "$prefix/lib/pkgconfig/sitter.pc"
