# SPDX-License-Identifier: MIT
# What `cpack` makes of an install: .deb packages and .tar.gz archives, one each for the headers, with BATCHNORM_COMPILED
# for the compiled kernels (the shared library apart from what programs need to be built with it), and with BATCHNORM_CUDA for
# those for CUDA devices and (built with the tests) for their self-test. Only the first serves every architecture.
#   cpack -G DEB    cpack -G TGZ    cpack -D CPACK_DEBIAN_PACKAGE_MAINTAINER="Name <address>"
set(CPACK_PACKAGE_VENDOR "The batchnorm project")
set(CPACK_PACKAGE_CONTACT "The batchnorm project")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_DESCRIPTION}")
set(CPACK_RESOURCE_FILE_LICENSE ${PROJECT_SOURCE_DIR}/LICENSE)
set(CPACK_GENERATOR DEB TGZ)
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL dev)
if(TARGET batchnorm_compiled)
  list(APPEND CPACK_COMPONENTS_ALL compiled)
endif()
if(TARGET batchnorm_compiled AND BATCHNORM_COMPILED_SHARED)
  list(APPEND CPACK_COMPONENTS_ALL compiled_runtime)
endif()
if(TARGET batchnorm_cuda)
  list(APPEND CPACK_COMPONENTS_ALL cuda)
endif()
if(TARGET batchnorm_cuda_selftest)
  list(APPEND CPACK_COMPONENTS_ALL cuda_selftest)
endif()

set(CPACK_COMPONENT_DEV_DESCRIPTION
    "A header-only template library for the CPU: training and inference,\ngradients, kernels for SSE2, AVX2 and AVX-512 chosen at run time.")
set(CPACK_COMPONENT_COMPILED_DESCRIPTION
    "The compiled kernels for the CPU: programs that link them take seconds\nto compile, not minutes.")
set(CPACK_COMPONENT_COMPILED_RUNTIME_DESCRIPTION "The compiled kernels for the CPU, as a shared library.")
set(CPACK_COMPONENT_CUDA_DESCRIPTION "The compiled kernels for CUDA devices, which batchnorm/cuda.hpp calls.")
set(CPACK_COMPONENT_CUDA_SELFTEST_DESCRIPTION
    "The self-test of the kernels for CUDA devices, which compares their bits;\nits exit status is 77 without a device.")

set(CPACK_PACKAGE_FILE_NAME batchnorm-${PROJECT_VERSION})
set(CPACK_PROJECT_CONFIG_FILE ${CMAKE_CURRENT_LIST_DIR}/archive_folder.cmake)
set(CPACK_ARCHIVE_COMPONENT_INSTALL ON)
set(CPACK_ARCHIVE_DEV_FILE_NAME batchnorm-${PROJECT_VERSION})
set(CPACK_ARCHIVE_COMPILED_FILE_NAME batchnorm-compiled-${PROJECT_VERSION}-${CMAKE_SYSTEM_NAME}-${CMAKE_SYSTEM_PROCESSOR})
set(CPACK_ARCHIVE_COMPILED_RUNTIME_FILE_NAME
    batchnorm-compiled-runtime-${PROJECT_VERSION}-${CMAKE_SYSTEM_NAME}-${CMAKE_SYSTEM_PROCESSOR})
set(CPACK_ARCHIVE_CUDA_FILE_NAME batchnorm-cuda-${PROJECT_VERSION}-${CMAKE_SYSTEM_NAME}-${CMAKE_SYSTEM_PROCESSOR})
set(CPACK_ARCHIVE_CUDA_SELFTEST_FILE_NAME
    batchnorm-cuda-selftest-${PROJECT_VERSION}-${CMAKE_SYSTEM_NAME}-${CMAKE_SYSTEM_PROCESSOR})

set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_DEV_PACKAGE_NAME libbatchnorm-dev)
set(CPACK_DEBIAN_DEV_PACKAGE_ARCHITECTURE all)
set(CPACK_DEBIAN_DEV_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEV_PACKAGE_DEPENDS "libeigen3-dev (>= 3.4)")
set(CPACK_DEBIAN_DEV_PACKAGE_SUGGESTS "zlib1g-dev, libopenmpi-dev, libopencv-dev")
set(CPACK_DEBIAN_COMPILED_PACKAGE_NAME libbatchnorm-compiled-dev)
set(CPACK_DEBIAN_COMPILED_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_COMPILED_PACKAGE_DEPENDS "libbatchnorm-dev (= ${PROJECT_VERSION})")
if(BATCHNORM_COMPILED_SHARED)
  # The package has the library's version in its name, as the file has: versions can be installed side by side.
  set(CPACK_DEBIAN_COMPILED_RUNTIME_PACKAGE_NAME libbatchnorm-compiled${PROJECT_VERSION})
  set(CPACK_DEBIAN_COMPILED_RUNTIME_PACKAGE_SECTION libs)
  set(CPACK_DEBIAN_COMPILED_RUNTIME_PACKAGE_SHLIBDEPS ON)
  set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
  string(APPEND CPACK_DEBIAN_COMPILED_PACKAGE_DEPENDS ", libbatchnorm-compiled${PROJECT_VERSION} (= ${PROJECT_VERSION})")
endif()
set(CPACK_DEBIAN_CUDA_PACKAGE_NAME libbatchnorm-cuda-dev)
set(CPACK_DEBIAN_CUDA_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_CUDA_PACKAGE_DEPENDS "libbatchnorm-dev (= ${PROJECT_VERSION})")
set(CPACK_DEBIAN_CUDA_SELFTEST_PACKAGE_NAME batchnorm-cuda-selftest)
set(CPACK_DEBIAN_CUDA_SELFTEST_PACKAGE_SECTION misc)

set(CPACK_PRE_BUILD_SCRIPTS ${CMAKE_CURRENT_LIST_DIR}/debian_documents.cmake)
set(CPACK_VERBATIM_VARIABLES ON)
include(CPack)
