# SPDX-License-Identifier: MIT
# The kernels of all types, with the built-in activations and all gradients, compiled once for the programs that link them; the
# headers declare what is here (include/batchnorm/compiled).
file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/../include/batchnorm/compiled/*.cpp)
add_library(batchnorm_compiled STATIC ${sources})
target_link_libraries(batchnorm_compiled PUBLIC batchnorm)
# Whether it has the kernels of x86-64-v4. Programs that differ from it in that have kernels of their own.
set(has_v4 1)
if("${CMAKE_CXX_FLAGS} " MATCHES "-DBATCHNORM_WITHOUT_AVX512[ =]")
  set(has_v4 0)
endif()
target_compile_definitions(batchnorm_compiled PUBLIC BATCHNORM_COMPILED=${has_v4})
# Shared libraries take it in.
set_target_properties(batchnorm_compiled PROPERTIES POSITION_INDEPENDENT_CODE ON)
