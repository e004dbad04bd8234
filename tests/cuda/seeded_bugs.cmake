# SPDX-License-Identifier: MIT
# Bugs put into the bodies of the kernels, each of which must be found: minutes, most of them spent in the compiler. All of the
# list, by hand: tests/cuda/seeded_bugs.sh g++ /tmp/seeded_bugs
add_test(NAME cuda_seeded_bugs
         COMMAND bash ${CMAKE_CURRENT_SOURCE_DIR}/seeded_bugs.sh ${CMAKE_CXX_COMPILER} ${CMAKE_CURRENT_BINARY_DIR}/seeded_bugs --some)
set_tests_properties(cuda_seeded_bugs PROPERTIES LABELS cuda_bugs PROCESSORS 2 TIMEOUT 1800)
