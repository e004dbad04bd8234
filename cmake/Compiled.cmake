# SPDX-License-Identifier: MIT
# batchnorm::compiled: the kernels of all types, with the built-in activations and all gradients, compiled once for the programs
# that link it. The headers declare what it has (include/batchnorm/compiled).
include(${CMAKE_CURRENT_LIST_DIR}/BuildType.cmake)

set(compiled_kind STATIC)
if(BATCHNORM_COMPILED_SHARED)
  set(compiled_kind SHARED)
endif()
file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/../include/batchnorm/compiled/*.cpp)
add_library(batchnorm_compiled ${compiled_kind} ${sources})
add_library(batchnorm::compiled ALIAS batchnorm_compiled)
target_link_libraries(batchnorm_compiled PUBLIC batchnorm)
# How many instruction sets it has kernels for. Programs that differ from it in that have kernels of their own.
set(compiled_isas 3)
if("${CMAKE_CXX_FLAGS} " MATCHES "-DBATCHNORM_BASELINE_ONLY[ =]")
  set(compiled_isas 1)
elseif("${CMAKE_CXX_FLAGS} " MATCHES "-DBATCHNORM_WITHOUT_AVX512[ =]")
  set(compiled_isas 2)
endif()
target_compile_definitions(batchnorm_compiled PUBLIC BATCHNORM_COMPILED=${compiled_isas})
set_target_properties(
  batchnorm_compiled
  PROPERTIES EXPORT_NAME compiled
             CXX_EXTENSIONS OFF
             POSITION_INDEPENDENT_CODE ON  # the static library becomes part of other people's shared libraries
             VISIBILITY_INLINES_HIDDEN OFF)
set(compiled_flags "-DBATCHNORM_COMPILED=${compiled_isas}")

if(BATCHNORM_COMPILED_SHARED)
  target_compile_definitions(batchnorm_compiled INTERFACE BATCHNORM_COMPILED_SHARED)
  string(APPEND compiled_flags " -DBATCHNORM_COMPILED_SHARED")
  set(compiled_exports ${CMAKE_CURRENT_BINARY_DIR}/batchnorm_compiled.map)
  if(CMAKE_CXX_VISIBILITY_PRESET)
    set_target_properties(batchnorm_compiled PROPERTIES CXX_VISIBILITY_PRESET default)  # the version script decides
  endif()
  configure_file(${CMAKE_CURRENT_LIST_DIR}/compiled.map.in ${compiled_exports} @ONLY)
  # The whole version, since programs share types with it that no release has to keep.
  set_target_properties(batchnorm_compiled PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION} DEFINE_SYMBOL ""
                                                      LINK_DEPENDS ${compiled_exports})
  # Its functions call each other directly, not what a program may have under the same name. It stays loaded: threads run its code.
  target_link_options(batchnorm_compiled PRIVATE LINKER:--version-script=${compiled_exports} LINKER:-Bsymbolic-functions
                      LINKER:-z,nodelete)
endif()

# Flags with which programs have kernels of their own make a library that none of them uses.
include(CheckCXXSourceCompiles)
block()
  set(CMAKE_TRY_COMPILE_CONFIGURATION ${CMAKE_BUILD_TYPE})
  set(CMAKE_REQUIRED_QUIET ON)
  set(CMAKE_REQUIRED_INCLUDES ${CMAKE_CURRENT_LIST_DIR}/../include)
  set(CMAKE_REQUIRED_DEFINITIONS -DBATCHNORM_COMPILED=${compiled_isas})
  unset(BATCHNORM_FLAGS_SUIT_COMPILED CACHE)
  check_cxx_source_compiles("#include <batchnorm/vector/config.hpp>
    static_assert(BATCHNORM_USES_COMPILED);
    int main() {}" BATCHNORM_FLAGS_SUIT_COMPILED)
endblock()
if(NOT BATCHNORM_FLAGS_SUIT_COMPILED)
  message(WARNING "batchnorm: no program will use batchnorm::compiled: the compiler's flags demand an instruction set, -ffast-math or "
                  "-fno-exceptions, and what is compiled so has kernels of its own")
endif()

if(BATCHNORM_INSTALL)
  # A package of its own, where libraries lie; batchnorm's finds it for those who ask for the component compiled. Of a shared library,
  # what programs need to run is apart from what they need to be built.
  set(compiled_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/batchnorm_compiled)
  set(CMAKE_INSTALL_DEFAULT_COMPONENT_NAME compiled)
  install(
    TARGETS batchnorm_compiled
    EXPORT batchnorm_compiledTargets
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT compiled_runtime NAMELINK_COMPONENT compiled)
  install(EXPORT batchnorm_compiledTargets NAMESPACE batchnorm:: DESTINATION ${compiled_package_dir})
  write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/batchnorm_compiledConfigVersion.cmake COMPATIBILITY ExactVersion)
  install(FILES ${CMAKE_CURRENT_LIST_DIR}/batchnorm_compiledConfig.cmake
                ${CMAKE_CURRENT_BINARY_DIR}/batchnorm_compiledConfigVersion.cmake
          DESTINATION ${compiled_package_dir})

  file(RELATIVE_PATH pkgconfig_to_lib /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix/${CMAKE_INSTALL_LIBDIR})
  configure_file(${CMAKE_CURRENT_LIST_DIR}/batchnorm-compiled.pc.in ${CMAKE_CURRENT_BINARY_DIR}/batchnorm-compiled.pc @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/batchnorm-compiled.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endif()
