# SPDX-License-Identifier: MIT
# Run by cpack on the staged files: Debian wants the license in a folder named after the package.
if(NOT CPACK_GENERATOR STREQUAL "DEB")
  return()
endif()
foreach(component IN LISTS CPACK_COMPONENTS_ALL)
  string(TOUPPER ${component} name)
  set(documents ${CPACK_TEMPORARY_DIRECTORY}/${component}/usr/share/doc)
  file(REMOVE_RECURSE ${documents}/batchnorm)
  configure_file(${CPACK_RESOURCE_FILE_LICENSE} ${documents}/${CPACK_DEBIAN_${name}_PACKAGE_NAME}/copyright COPYONLY)
endforeach()
