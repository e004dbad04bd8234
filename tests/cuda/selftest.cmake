# SPDX-License-Identifier: MIT
# The self-test for machines with a CUDA device, and the same cases on the emulator, which need no CUDA.
add_library(batchnorm_cuda_selftest_suite STATIC selftest/cases.cpp selftest/reference.cpp selftest/run.cpp selftest/suite.cpp)
target_link_libraries(batchnorm_cuda_selftest_suite PUBLIC batchnorm::batchnorm batchnorm_warnings)

# `batchnorm_cuda_emulated_selftest FILE` makes tests/cuda/selftest/expected.inc anew.
add_executable(batchnorm_cuda_emulated_selftest selftest/emulated_selftest.cpp emulated_library.cpp emulator.cpp)
target_link_libraries(batchnorm_cuda_emulated_selftest PRIVATE batchnorm_cuda_selftest_suite)
target_include_directories(batchnorm_cuda_emulated_selftest PRIVATE ${PROJECT_SOURCE_DIR}/tests)
# The bits of a device: nothing is contracted but what the bodies contract themselves.
target_compile_options(batchnorm_cuda_emulated_selftest PRIVATE -ffp-contract=off)
add_test(NAME cuda_emulated_selftest COMMAND batchnorm_cuda_emulated_selftest)
set_tests_properties(cuda_emulated_selftest PROPERTIES LABELS cuda TIMEOUT 1800)

if(TARGET batchnorm_cuda)
  add_executable(batchnorm_cuda_selftest selftest/selftest.cpp)
  target_link_libraries(batchnorm_cuda_selftest PRIVATE batchnorm_cuda_selftest_suite batchnorm_cuda)
  add_test(NAME cuda_selftest COMMAND batchnorm_cuda_selftest)
  set_tests_properties(cuda_selftest PROPERTIES LABELS cuda TIMEOUT 600 SKIP_RETURN_CODE 77)
  if(BATCHNORM_INSTALL)
    # The runtime library is found where it was linked.
    set_target_properties(batchnorm_cuda_selftest PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON)
    install(TARGETS batchnorm_cuda_selftest RUNTIME DESTINATION ${CMAKE_INSTALL_LIBDIR}/batchnorm COMPONENT cuda_selftest)
  endif()
endif()
