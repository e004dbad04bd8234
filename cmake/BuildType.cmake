# SPDX-License-Identifier: MIT
# Where this project compiles something of its own and nobody has chosen a build type, it is Release: unoptimized kernels are of no
# use. A project that includes this one chooses for both.
if(PROJECT_IS_TOP_LEVEL AND NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  message(STATUS "batchnorm: no build type given, Release it is")
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Debug, Release, RelWithDebInfo or MinSizeRel" FORCE)
endif()
