// The header is in a second file of the same program.
#include "sitter.hpp"

std::string version_seen_by_another_file() { return sitter::version(); }
