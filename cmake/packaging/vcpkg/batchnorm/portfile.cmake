# SPDX-License-Identifier: MIT
# An overlay port of this checkout, to be used in place:
#   vcpkg install batchnorm --overlay-ports=path/to/batchnorm/cmake/packaging/vcpkg
get_filename_component(SOURCE_PATH "${CMAKE_CURRENT_LIST_DIR}/../../../.." ABSOLUTE)

vcpkg_cmake_configure(
  SOURCE_PATH "${SOURCE_PATH}"
  OPTIONS
    -DBATCHNORM_BUILD_TESTS=OFF
    -DBATCHNORM_BUILD_EXAMPLES=OFF
    -DBATCHNORM_BUILD_BENCH=OFF
    -DBATCHNORM_INSTALL=ON
    -DBATCHNORM_CUDA=OFF)
vcpkg_cmake_install()
vcpkg_cmake_config_fixup(CONFIG_PATH share/cmake/batchnorm)
vcpkg_fixup_pkgconfig()
file(REMOVE_RECURSE "${CURRENT_PACKAGES_DIR}/debug" "${CURRENT_PACKAGES_DIR}/share/doc")
vcpkg_install_copyright(FILE_LIST "${SOURCE_PATH}/LICENSE")
