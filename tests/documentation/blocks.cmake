# SPDX-License-Identifier: MIT
# The ```cpp blocks of a document.

# next_block(REST BEFORE BLOCK): takes the next one out of the text in the variable REST, which is then what follows it, and sets
# BEFORE to what came before it. BLOCK is empty when there is none. (Parameters of a function hide variables of the same name.)
function(next_block to_rest to_before to_block)
  set(text "${${to_rest}}")
  string(FIND "${text}" "\n```cpp\n" begin)
  if(begin EQUAL -1)
    set(${to_block} "" PARENT_SCOPE)
    return()
  endif()
  string(SUBSTRING "${text}" 0 ${begin} part)
  set(${to_before} "${part}" PARENT_SCOPE)
  math(EXPR begin "${begin} + 8")
  string(SUBSTRING "${text}" ${begin} -1 text)
  string(FIND "${text}" "\n```" end)
  string(SUBSTRING "${text}" 0 ${end} part)
  set(${to_block} "${part}" PARENT_SCOPE)
  math(EXPR end "${end} + 5")
  string(SUBSTRING "${text}" ${end} -1 part)
  set(${to_rest} "${part}" PARENT_SCOPE)
endfunction()

# Writes a file unless it holds just that: an unchanged program is not compiled again.
function(write_if_changed file content)
  set(written "")
  if(EXISTS ${file})
    file(READ ${file} written)
  endif()
  if(NOT written STREQUAL content)
    file(WRITE ${file} "${content}")
  endif()
endfunction()
