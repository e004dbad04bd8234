# SPDX-License-Identifier: MIT
# Sets BATCHNORM_NVCC to the CUDA compiler, looked for where it usually lies. As a script (cmake -P) prints it, if it is there.
file(GLOB toolkits /usr/local/cuda-*)
list(SORT toolkits COMPARE NATURAL ORDER DESCENDING)
find_program(
  BATCHNORM_NVCC nvcc
  HINTS ENV CUDA_PATH ENV CUDA_HOME
  PATHS /usr/local/cuda ${toolkits} /opt/cuda
  PATH_SUFFIXES bin)
mark_as_advanced(BATCHNORM_NVCC)
if(CMAKE_SCRIPT_MODE_FILE STREQUAL CMAKE_CURRENT_LIST_FILE AND BATCHNORM_NVCC)
  execute_process(COMMAND ${CMAKE_COMMAND} -E echo ${BATCHNORM_NVCC})
endif()
