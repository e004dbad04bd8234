# SPDX-License-Identifier: MIT
# Writes the README's first program, the first ```cpp block with an int main, to a file:
#   cmake -D readme=README.md -D readme_program=out.cpp -P extract_program.cmake
include(${CMAKE_CURRENT_LIST_DIR}/../documentation/blocks.cmake)
file(READ ${readme} rest)
next_block(rest before program)
while(program AND NOT program MATCHES "int main\\(")
  next_block(rest before program)
endwhile()
if(NOT program)
  message(FATAL_ERROR "${readme} holds no cpp block with an int main")
endif()
write_if_changed(${readme_program} "${program}\n")
