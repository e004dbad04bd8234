# SPDX-License-Identifier: MIT
# Runs a program of a document; where the document says what it prints, it must print that.
execute_process(COMMAND ${program} OUTPUT_VARIABLE printed COMMAND_ERROR_IS_FATAL ANY)
file(READ ${expected} expected)
if(NOT expected STREQUAL "" AND NOT expected STREQUAL printed)
  message(FATAL_ERROR "it prints\n${printed}where the document says\n${expected}")
endif()
message("${printed}")
