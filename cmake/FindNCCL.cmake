# SPDX-License-Identifier: MIT
# NCCL::NCCL, NVIDIA's library of collective calls, where the variable NCCL_ROOT (of CMake or of the environment) says or where
# libraries lie. NCCL_ROOT may also be the folder nvidia/nccl of PyPI's nvidia-nccl-cu12 or nvidia-nccl-cu13, which has no
# libnccl.so, only libnccl.so.2. As a script (cmake -P) prints the library, if it is there.
if(CMAKE_SCRIPT_MODE_FILE STREQUAL CMAKE_CURRENT_LIST_FILE)
  set(script_mode_hints HINTS ENV NCCL_ROOT /usr/lib/${CMAKE_HOST_SYSTEM_PROCESSOR}-linux-gnu)
endif()
find_path(NCCL_INCLUDE_DIR nccl.h ${script_mode_hints} PATH_SUFFIXES include)
find_library(NCCL_LIBRARY NAMES nccl libnccl.so.2 ${script_mode_hints} PATH_SUFFIXES lib lib64)
mark_as_advanced(NCCL_INCLUDE_DIR NCCL_LIBRARY)
