# SPDX-License-Identifier: MIT
# NCCL::NCCL, NVIDIA's library of collective calls: where NCCL_ROOT says (a variable of CMake or of the environment), beside the
# CUDA toolkit, or where libraries usually lie. NCCL_ROOT may be the folder nvidia/nccl that PyPI's packages nvidia-nccl-cu12 and
# nvidia-nccl-cu13 install, which has no libnccl.so but only libnccl.so.2. As a script (cmake -P) prints the library, if it is
# there with its header.
set(batchnorm_nccl_places HINTS ${NCCL_ROOT} ENV NCCL_ROOT PATHS ${CUDAToolkit_INCLUDE_DIRS} ${CUDAToolkit_LIBRARY_DIR}
                          /usr /usr/local /usr/local/cuda)
find_path(NCCL_INCLUDE_DIR nccl.h ${batchnorm_nccl_places} PATH_SUFFIXES include)
find_library(NCCL_LIBRARY NAMES nccl libnccl.so libnccl.so.2 NAMES_PER_DIR ${batchnorm_nccl_places}
             PATH_SUFFIXES lib lib64 lib/${CMAKE_HOST_SYSTEM_PROCESSOR}-linux-gnu)
unset(batchnorm_nccl_places)
if(CMAKE_SCRIPT_MODE_FILE STREQUAL CMAKE_CURRENT_LIST_FILE)
  if(NCCL_INCLUDE_DIR AND NCCL_LIBRARY)
    execute_process(COMMAND ${CMAKE_COMMAND} -E echo ${NCCL_LIBRARY})
  endif()
  return()
endif()
mark_as_advanced(NCCL_INCLUDE_DIR NCCL_LIBRARY)

if(NCCL_INCLUDE_DIR)
  file(STRINGS ${NCCL_INCLUDE_DIR}/nccl.h NCCL_VERSION REGEX "^#define NCCL_(MAJOR|MINOR|PATCH) ")
  list(TRANSFORM NCCL_VERSION REPLACE "[^0-9]" "")
  list(JOIN NCCL_VERSION "." NCCL_VERSION)
endif()
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(NCCL REQUIRED_VARS NCCL_LIBRARY NCCL_INCLUDE_DIR VERSION_VAR NCCL_VERSION)
if(NCCL_FOUND AND NOT TARGET NCCL::NCCL)
  add_library(NCCL::NCCL UNKNOWN IMPORTED)
  set_target_properties(NCCL::NCCL PROPERTIES IMPORTED_LOCATION ${NCCL_LIBRARY} INTERFACE_INCLUDE_DIRECTORIES ${NCCL_INCLUDE_DIR})
endif()
