# SPDX-License-Identifier: MIT
# Conan 2, from a checkout:
#   conan create cmake/packaging/conan --build=missing
# Consumers find it as find_package(batchnorm), with the components of the library's own CMake package.
import os

from conan import ConanFile
from conan.tools.build import check_min_cppstd
from conan.tools.cmake import CMake, CMakeDeps, CMakeToolchain, cmake_layout
from conan.tools.files import copy


class BatchnormConan(ConanFile):
    name = "batchnorm"
    version = "0.1.0"
    description = "Batch normalization for C++20, header-only"
    license = "MIT"
    package_type = "header-library"
    settings = "os", "arch", "compiler", "build_type"
    options = {"checkpoint": [True, False], "mpi": [True, False], "opencv": [True, False]}
    default_options = {"checkpoint": False, "mpi": False, "opencv": False}

    def export_sources(self):
        root = os.path.join(self.recipe_folder, "..", "..", "..")
        for pattern in ("CMakeLists.txt", "LICENSE", "cmake/*", "include/*"):
            copy(self, pattern, src=root, dst=self.export_sources_folder)

    def requirements(self):
        self.requires("eigen/[>=3.4 <6]", transitive_headers=True)
        if self.options.checkpoint:
            self.requires("zlib/[>=1.2.11 <2]", transitive_headers=True)
        if self.options.mpi:
            self.requires("openmpi/[>=4 <6]", transitive_headers=True)
        if self.options.opencv:
            self.requires("opencv/[>=4 <5]", transitive_headers=True)

    def validate(self):
        check_min_cppstd(self, 20)

    def layout(self):
        cmake_layout(self)

    def generate(self):
        toolchain = CMakeToolchain(self)
        toolchain.cache_variables["BATCHNORM_BUILD_TESTS"] = False
        toolchain.cache_variables["BATCHNORM_BUILD_EXAMPLES"] = False
        toolchain.cache_variables["BATCHNORM_BUILD_BENCH"] = False
        toolchain.cache_variables["BATCHNORM_INSTALL"] = True
        toolchain.cache_variables["BATCHNORM_CUDA"] = False
        toolchain.generate()
        CMakeDeps(self).generate()

    def build(self):
        CMake(self).configure()

    def package(self):
        CMake(self).install()
        copy(self, "LICENSE", src=self.source_folder, dst=os.path.join(self.package_folder, "licenses"))

    def package_id(self):
        self.info.clear()

    def package_info(self):
        # The package's own batchnormConfig.cmake serves: it knows the components.
        self.cpp_info.set_property("cmake_find_mode", "none")
        self.cpp_info.builddirs = [os.path.join("share", "cmake", "batchnorm")]
        self.cpp_info.bindirs = []
        self.cpp_info.libdirs = []
        self.cpp_info.system_libs = ["pthread"]
