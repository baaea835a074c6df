# The version of the interface, SITTER_ABI_MAJOR and SITTER_ABI_MINOR of sitter.h, which is what programs depend on; one of the
# same major version and not older will do.
set(PACKAGE_VERSION "1.1.0")

string(REGEX MATCH "^[0-9]+" _sitter_major "${PACKAGE_VERSION}")
if(PACKAGE_FIND_VERSION STREQUAL "")
  set(PACKAGE_VERSION_COMPATIBLE TRUE)
elseif(PACKAGE_FIND_VERSION_MAJOR STREQUAL _sitter_major AND NOT PACKAGE_VERSION VERSION_LESS PACKAGE_FIND_VERSION)
  set(PACKAGE_VERSION_COMPATIBLE TRUE)
  if(PACKAGE_VERSION VERSION_EQUAL PACKAGE_FIND_VERSION)
    set(PACKAGE_VERSION_EXACT TRUE)
  endif()
else()
  set(PACKAGE_VERSION_COMPATIBLE FALSE)
endif()
unset(_sitter_major)
