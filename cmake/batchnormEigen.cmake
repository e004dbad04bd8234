# SPDX-License-Identifier: MIT
# Included here and by the installed package: Eigen 3.4 to 5, as the target Eigen3::Eigen; sets batchnorm_eigen_found. The version
# file of Eigen 3.4.1 and newer takes a range, that of 3.4.0 and a plain one of CMake's take one major version.
set(batchnorm_eigen_found FALSE)
if(TARGET Eigen3::Eigen)
  set(batchnorm_eigen_found TRUE)  # the surrounding project has chosen
endif()
foreach(batchnorm_eigen_version 3.4...5 3.4 5)
  if(NOT batchnorm_eigen_found)
    find_package(Eigen3 ${batchnorm_eigen_version} CONFIG QUIET)
    set(batchnorm_eigen_found ${Eigen3_FOUND})
  endif()
endforeach()
