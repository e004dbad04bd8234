# SPDX-License-Identifier: MIT
# Two programs print the same: cmake -D headers=PROGRAM -D library=PROGRAM -P compare.cmake
foreach(program headers library)
  execute_process(COMMAND ${${program}} OUTPUT_VARIABLE of_${program} COMMAND_ERROR_IS_FATAL ANY)
  # Both formats on the baseline at least.
  string(REGEX MATCHALL "[^\n]* dx [0-9a-f]+ [^\n]*, inference of half y [0-9a-f]+\n" lines "${of_${program}}")
  list(LENGTH lines count)
  if(count LESS 2)
    message(FATAL_ERROR "${${program}} prints ${count} lines:\n${of_${program}}")
  endif()
endforeach()
if(NOT of_headers STREQUAL of_library)
  message(FATAL_ERROR "the headers alone give\n${of_headers}the library\n${of_library}")
endif()
message("${of_library}")
