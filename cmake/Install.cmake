# SPDX-License-Identifier: MIT
# Installs the headers, the CMake package and pkg-config's file: the component dev. Nothing in it depends on the architecture or
# on where the prefix stands.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(CMAKE_INSTALL_DEFAULT_COMPONENT_NAME dev)
set(package_dir ${CMAKE_INSTALL_DATADIR}/cmake/batchnorm)

# INCLUDES serves CMake 3.21 and 3.22, which know no file sets.
install(
  TARGETS batchnorm
  EXPORT batchnormTargets
  FILE_SET HEADERS
  INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
# What batchnorm::cuda is compiled from, for those who compile it with other options.
install(FILES include/batchnorm/cuda/batch_norm.cu DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/batchnorm/cuda)
install(EXPORT batchnormTargets NAMESPACE batchnorm:: DESTINATION ${package_dir})
# Files of their own: the package reads them only for those who ask for these components.
foreach(part checkpoint eigen mpi opencv)
  install(
    TARGETS batchnorm_${part}
    EXPORT batchnorm_${part}Targets
    FILE_SET HEADERS
    INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
  install(EXPORT batchnorm_${part}Targets NAMESPACE batchnorm:: DESTINATION ${package_dir})
endforeach()

configure_package_config_file(
  ${CMAKE_CURRENT_LIST_DIR}/batchnormConfig.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/batchnormConfig.cmake
  INSTALL_DESTINATION ${package_dir}
  NO_SET_AND_CHECK_MACRO)
# Before 1.0 a new minor version may change the interface.
write_basic_package_version_file(
  ${CMAKE_CURRENT_BINARY_DIR}/batchnormConfigVersion.cmake
  COMPATIBILITY SameMinorVersion
  ARCH_INDEPENDENT)
install(
  FILES ${CMAKE_CURRENT_BINARY_DIR}/batchnormConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/batchnormConfigVersion.cmake
        ${CMAKE_CURRENT_LIST_DIR}/batchnormEigen.cmake
  DESTINATION ${package_dir})

# From where the file lies to the headers, so that it may be moved with them.
file(RELATIVE_PATH pkgconfig_to_include /prefix/${CMAKE_INSTALL_DATADIR}/pkgconfig /prefix/${CMAKE_INSTALL_INCLUDEDIR})
configure_file(${CMAKE_CURRENT_LIST_DIR}/batchnorm.pc.in ${CMAKE_CURRENT_BINARY_DIR}/batchnorm.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/batchnorm.pc DESTINATION ${CMAKE_INSTALL_DATADIR}/pkgconfig)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
