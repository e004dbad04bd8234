# SPDX-License-Identifier: MIT
if(NOT TARGET batchnorm::batchnorm)
  set(${CMAKE_FIND_PACKAGE_NAME}_FOUND FALSE)
  set(${CMAKE_FIND_PACKAGE_NAME}_NOT_FOUND_MESSAGE "ask for it as find_package(batchnorm COMPONENTS compiled)")
  return()
endif()

include("${CMAKE_CURRENT_LIST_DIR}/batchnorm_compiledTargets.cmake")
