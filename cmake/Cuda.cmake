# SPDX-License-Identifier: MIT
# batchnorm::cuda, the kernels for CUDA devices: the one part of the library that is compiled.
if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  include(${CMAKE_CURRENT_LIST_DIR}/Nvcc.cmake)
  if(NOT BATCHNORM_NVCC)
    message(FATAL_ERROR "batchnorm: BATCHNORM_CUDA=ON needs nvcc, which was not found; "
                        "name it in CMAKE_CUDA_COMPILER, or configure with -DBATCHNORM_CUDA=OFF")
  endif()
  set(CMAKE_CUDA_COMPILER ${BATCHNORM_NVCC} CACHE FILEPATH "The CUDA compiler")
endif()
# Devices from 7.5 to 12.1 but those of cars and robots (8.7, 11.0), and PTX for those to come.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
  set(CMAKE_CUDA_ARCHITECTURES 75-real 80-real 86-real 89-real 90-real 100-real 120)
endif()
enable_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER_ID STREQUAL NVIDIA OR CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.8)
  message(FATAL_ERROR "batchnorm: BATCHNORM_CUDA=ON needs nvcc 12.8 or newer, "
                      "this is ${CMAKE_CUDA_COMPILER_ID} ${CMAKE_CUDA_COMPILER_VERSION}")
endif()
find_package(CUDAToolkit REQUIRED)

add_library(batchnorm_cuda STATIC include/batchnorm/cuda/batch_norm.cu)
add_library(batchnorm::cuda ALIAS batchnorm_cuda)
target_link_libraries(batchnorm_cuda PUBLIC batchnorm CUDA::cudart)
set_target_properties(batchnorm_cuda PROPERTIES EXPORT_NAME cuda POSITION_INDEPENDENT_CODE ON CUDA_RUNTIME_LIBRARY None)
# CMake 3.25 does not know that nvcc has C++20. --threads: architectures side by side.
target_compile_options(batchnorm_cuda PRIVATE -std=c++20 -fmad=false --threads=0)
if(BATCHNORM_WARNINGS_AS_ERRORS)
  # Without -Wpedantic: what nvcc hands to the host's compiler has line directives in the style of GCC.
  target_compile_options(batchnorm_cuda PRIVATE -Werror=all-warnings -Xcompiler=-Wall,-Wextra,-Wconversion,-Wshadow)
endif()

# The part that needs NCCL. It is there without NCCL, too, to be installed; only who links it needs NCCL::NCCL. NCCL's header
# before CUDA's, whose toolkit may bring an nccl.h of its own.
list(APPEND CMAKE_MODULE_PATH ${CMAKE_CURRENT_LIST_DIR})
find_package(NCCL QUIET)
add_library(batchnorm_nccl INTERFACE)
add_library(batchnorm::nccl ALIAS batchnorm_nccl)
target_sources(batchnorm_nccl INTERFACE FILE_SET HEADERS BASE_DIRS include FILES include/batchnorm/nccl.hpp)
target_link_libraries(batchnorm_nccl INTERFACE NCCL::NCCL batchnorm_cuda)
set_target_properties(batchnorm_nccl PROPERTIES EXPORT_NAME nccl)
if(NCCL_FOUND)
  set_target_properties(batchnorm_nccl PROPERTIES VERIFY_INTERFACE_HEADER_SETS ${PROJECT_IS_TOP_LEVEL})
else()
  set_property(GLOBAL APPEND PROPERTY BATCHNORM_LEFT_OUT
               "what needs batchnorm::nccl: NCCL was not found (name its folder in NCCL_ROOT)")
endif()

if(BATCHNORM_INSTALL)
  # A package of its own, where libraries lie; batchnorm's finds it for those who ask for the component cuda.
  set(cuda_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/batchnorm_cuda)
  set(CMAKE_INSTALL_DEFAULT_COMPONENT_NAME cuda)
  install(TARGETS batchnorm_cuda EXPORT batchnorm_cudaTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(EXPORT batchnorm_cudaTargets NAMESPACE batchnorm:: DESTINATION ${cuda_package_dir})
  # Read only for those who ask for the component nccl.
  install(TARGETS batchnorm_nccl EXPORT batchnorm_ncclTargets FILE_SET HEADERS
          INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
  install(EXPORT batchnorm_ncclTargets NAMESPACE batchnorm:: DESTINATION ${cuda_package_dir})
  write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/batchnorm_cudaConfigVersion.cmake COMPATIBILITY ExactVersion)
  install(FILES ${CMAKE_CURRENT_LIST_DIR}/batchnorm_cudaConfig.cmake
                ${CMAKE_CURRENT_LIST_DIR}/FindNCCL.cmake
                ${CMAKE_CURRENT_BINARY_DIR}/batchnorm_cudaConfigVersion.cmake
          DESTINATION ${cuda_package_dir})
endif()
