# SPDX-License-Identifier: MIT
# Writes a header that names the revision of the sources.
cmake_minimum_required(VERSION 3.25)
set(revision unknown)
execute_process(COMMAND git -C ${source} describe --always --dirty --abbrev=12 OUTPUT_VARIABLE output
                OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE status)
if(status EQUAL 0)
  set(revision ${output})
endif()
file(CONFIGURE OUTPUT ${header} CONTENT "#pragma once\n#define BATCHNORM_BENCH_REVISION \"@revision@\"\n" @ONLY)
