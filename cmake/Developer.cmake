# SPDX-License-Identifier: MIT
# For this project's own programs; consumers of batchnorm::batchnorm see none of it.
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)

include(${CMAKE_CURRENT_LIST_DIR}/BuildType.cmake)

add_library(batchnorm_warnings INTERFACE)
target_compile_options(batchnorm_warnings INTERFACE -Wall -Wextra -Wpedantic -Wconversion -Wshadow)
# GCC 12 sees overlapping copies in "text" + std::string that are none (its bug 105651).
target_compile_options(
  batchnorm_warnings INTERFACE $<$<AND:$<CXX_COMPILER_ID:GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>:-Wno-restrict>)
if(BATCHNORM_WARNINGS_AS_ERRORS)
  target_compile_options(batchnorm_warnings INTERFACE -Werror)
endif()

# batchnorm_left_out(<what> <package> <Debian name>): what is not built here and how to change that, said once at the end.
function(batchnorm_left_out what package debian_name)
  set_property(GLOBAL APPEND PROPERTY BATCHNORM_LEFT_OUT "${what}: ${package} was not found (in Debian: ${debian_name})")
endfunction()
