# SPDX-License-Identifier: MIT
if(NOT TARGET batchnorm::batchnorm)
  set(${CMAKE_FIND_PACKAGE_NAME}_FOUND FALSE)
  set(${CMAKE_FIND_PACKAGE_NAME}_NOT_FOUND_MESSAGE "ask for it as find_package(batchnorm COMPONENTS cuda)")
  return()
endif()

include(CMakeFindDependencyMacro)
find_dependency(CUDAToolkit)

include("${CMAKE_CURRENT_LIST_DIR}/batchnorm_cudaTargets.cmake")
