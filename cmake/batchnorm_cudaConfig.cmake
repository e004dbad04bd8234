# SPDX-License-Identifier: MIT
if(NOT TARGET batchnorm::batchnorm)
  set(${CMAKE_FIND_PACKAGE_NAME}_FOUND FALSE)
  set(${CMAKE_FIND_PACKAGE_NAME}_NOT_FOUND_MESSAGE "ask for it as find_package(batchnorm COMPONENTS cuda)")
  return()
endif()

include(CMakeFindDependencyMacro)
find_dependency(CUDAToolkit)

include("${CMAKE_CURRENT_LIST_DIR}/batchnorm_cudaTargets.cmake")

# The component nccl, batchnorm::nccl.
if("nccl" IN_LIST ${CMAKE_FIND_PACKAGE_NAME}_FIND_COMPONENTS)
  list(PREPEND CMAKE_MODULE_PATH "${CMAKE_CURRENT_LIST_DIR}")
  find_package(NCCL QUIET)
  list(POP_FRONT CMAKE_MODULE_PATH)
  if(NCCL_FOUND)
    include("${CMAKE_CURRENT_LIST_DIR}/batchnorm_ncclTargets.cmake")
  else()
    set(${CMAKE_FIND_PACKAGE_NAME}_FOUND FALSE)
    set(${CMAKE_FIND_PACKAGE_NAME}_NOT_FOUND_MESSAGE "NCCL was not found (name its folder in NCCL_ROOT)")
  endif()
endif()
