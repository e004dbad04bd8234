# SPDX-License-Identifier: MIT
# Read by cpack for each kind of package: an archive is unpacked to one folder.
if(CPACK_GENERATOR STREQUAL "TGZ")
  set(CPACK_COMPONENT_INCLUDE_TOPLEVEL_DIRECTORY ON)
endif()
