# find_package(sitter) for C and C++: sitter::sitter is the shared library, sitter::sitter_static the static one where it is
# installed. At most one Rust static library goes into a program; the shared one is recommended.
#
# This file lies in PREFIX/share/cmake/sitter; everything is found from there, so the prefix can be moved.

get_filename_component(_sitter_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
set(_sitter_include "${_sitter_prefix}/include/sitter-1")

# As cargo-c installs it there, with either linker.
if(WIN32 AND NOT TARGET sitter::sitter)
  set(_sitter_library "${_sitter_prefix}/bin/sitter.dll")
  foreach(_sitter_import sitter.dll.lib libsitter.dll.a)
    if(NOT TARGET sitter::sitter AND EXISTS "${_sitter_library}" AND EXISTS "${_sitter_prefix}/lib/${_sitter_import}")
      add_library(sitter::sitter SHARED IMPORTED)
      set_target_properties(sitter::sitter PROPERTIES
        IMPORTED_LOCATION "${_sitter_library}"
        IMPORTED_IMPLIB "${_sitter_prefix}/lib/${_sitter_import}"
        INTERFACE_COMPILE_DEFINITIONS SITTER_DLL
        INTERFACE_INCLUDE_DIRECTORIES "${_sitter_include}")
    endif()
  endforeach()
  unset(_sitter_import)
endif()

foreach(_sitter_folder "lib/${CMAKE_LIBRARY_ARCHITECTURE}" lib lib64)
  set(_sitter_library "${_sitter_prefix}/${_sitter_folder}/${CMAKE_SHARED_LIBRARY_PREFIX}sitter${CMAKE_SHARED_LIBRARY_SUFFIX}")
  if(NOT TARGET sitter::sitter AND EXISTS "${_sitter_library}")
    add_library(sitter::sitter SHARED IMPORTED)
    set_target_properties(sitter::sitter PROPERTIES
      IMPORTED_LOCATION "${_sitter_library}"
      INTERFACE_INCLUDE_DIRECTORIES "${_sitter_include}")
  endif()

  set(_sitter_library "${_sitter_prefix}/${_sitter_folder}/libsitter.a")
  if(NOT TARGET sitter::sitter_static AND EXISTS "${_sitter_library}" AND CMAKE_SYSTEM_NAME STREQUAL "Linux")
    add_library(sitter::sitter_static STATIC IMPORTED)
    set_target_properties(sitter::sitter_static PROPERTIES
      IMPORTED_LOCATION "${_sitter_library}"
      INTERFACE_INCLUDE_DIRECTORIES "${_sitter_include}"
      # What rustc --print native-static-libs says, as in sitter.pc.in.
      INTERFACE_LINK_LIBRARIES "gcc_s;util;rt;pthread;m;dl;c")
  endif()
endforeach()

if(NOT TARGET sitter::sitter AND NOT TARGET sitter::sitter_static)
  set(sitter_FOUND FALSE)
  set(sitter_NOT_FOUND_MESSAGE "no library of sitter under ${_sitter_prefix}")
endif()

unset(_sitter_prefix)
unset(_sitter_include)
unset(_sitter_folder)
unset(_sitter_library)
