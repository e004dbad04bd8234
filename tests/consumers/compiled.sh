# SPDX-License-Identifier: MIT
# The scenarios of batchnorm::compiled, for run.sh: installed, from a Debian package, as a shared library, as a subdirectory.

# batchnorm::compiled takes minutes to compile: its objects are those of the tests' build, where there is one, otherwise they are
# compiled here, without optimization.
export donor=$source/build/tests/release
[[ -e $donor/build.ninja ]] || donor=$source/build/tests/gcc-release
[[ -e $donor/build.ninja ]] || donor=$build/donor
prepare_donor() {
  [[ -e $donor/build.ninja ]] ||
    cmake -S . -B "$donor" -G Ninja -D CMAKE_BUILD_TYPE=Release -D CMAKE_CXX_FLAGS_RELEASE="-O0 -DNDEBUG" \
      -D CMAKE_EXPORT_COMPILE_COMMANDS=ON -D BATCHNORM_BUILD_TESTS=OFF -D BATCHNORM_BUILD_EXAMPLES=OFF \
      -D BATCHNORM_BUILD_BENCH=OFF -D BATCHNORM_COMPILED=ON
  cmake --build "$donor" --target batchnorm_compiled
}

# Sets reuse to the options of a build that takes these objects over.
reuse_objects() {
  local variable
  reuse=(-D BATCHNORM_COMPILED=ON -D CMAKE_CXX_COMPILER_LAUNCHER="$source/tests/consumers/reuse_objects.sh")
  for variable in CMAKE_BUILD_TYPE CMAKE_CXX_COMPILER CMAKE_CXX_FLAGS CMAKE_CXX_FLAGS_RELEASE; do
    reuse+=(-D "$variable=$(sed -n "s/^$variable:[A-Z]*=//p" "$donor/CMakeCache.txt")")
  done
}

# check_no_kernels: the program's object has none, nor walks.
check_no_kernels() {
  nm --demangle "$folder/CMakeFiles/program.dir/program.cpp.o" > "$folder/symbols" &&
    grep -q ' U .*batchnorm::kernels_exact::batch_norm<float' "$folder/symbols" &&
    ! grep -E ' [^U] .*batchnorm::.*::((Baseline|V3|V4)::run|(run_baseline|run_v[34]|sweep|reduce_then_sweep)<|walk_)' "$folder/symbols"
}

prepare_compiled() {
  prepare_donor
  reuse_objects
  install "$build/compiled" "${reuse[@]}"
  (cd "$build/compiled-build" && cpack -G DEB)
  mv "$build/compiled" "$build/compiled-moved"
  check_moved "$build/compiled-moved"
  dpkg-deb --extract "$build/compiled-build/libbatchnorm-compiled-dev_${version}"_*.deb "$build/compiled-debian"
  # Nothing of it is in the headers' package, too.
  [[ -e $build/compiled-debian/usr/lib/libbatchnorm_compiled.a ]]
  [[ $(ls "$build/compiled-debian/usr" "$build/compiled-debian/usr/share" | paste -sd ' ') == *'lib share '*'share: doc' ]]

  install "$build/compiled_shared" "${reuse[@]}" -D BATCHNORM_COMPILED_SHARED=ON
  (cd "$build/compiled_shared-build" && cpack -G DEB)
  local library=$build/compiled_shared/lib/libbatchnorm_compiled.so
  readelf --dynamic "$library" | grep -F "SONAME" | grep -F "[libbatchnorm_compiled.so.$version]"
  # Its own symbols, and each with the version.
  nm --dynamic --defined-only "$library" | grep -c "@@BATCHNORM_$version\$"
  if nm --dynamic --defined-only "$library" |
    grep -vE " (_Z(T[ISV]|Z|GVZ)?NK?9batchnorm.*@@BATCHNORM_$version|BATCHNORM_$version)\$"; then
    return 1
  fi
  local packages=$build/compiled_shared-build
  [[ $(dpkg-deb --field "$packages/libbatchnorm-compiled${version}_${version}"_*.deb Depends) == *libstdc++6* ]]
  [[ $(dpkg-deb --field "$packages/libbatchnorm-compiled-dev_${version}"_*.deb Depends) == *libbatchnorm-compiled$version* ]]
}

# Programs of Clang link the library that GCC has compiled.
compiled_installed() { consume compiled "$1" -D CMAKE_PREFIX_PATH="$build/compiled-moved" && check_no_kernels; }
compiled_shared() {
  consume compiled "$1" -D CMAKE_PREFIX_PATH="$build/compiled_shared" && check_no_kernels &&
    nm --dynamic --demangle "$folder/program" > "$folder/dynamic_symbols" &&
    grep " U .*::batch_norm<float.*@BATCHNORM_$version$" "$folder/dynamic_symbols"
}
compiled_subdirectory() {
  reuse_objects && consume compiled "$1" -D BATCHNORM_SOURCE="$source" "${reuse[@]}" && check_no_kernels
}
compiled_pkg_config() {
  local options paths=$build/compiled-debian/usr/lib/pkgconfig:$build/debian/usr/share/pkgconfig
  options=$(PKG_CONFIG_PATH=$paths pkg-config --cflags --libs batchnorm-compiled) &&
    compile "$1" c++20 tests/consumers/compiled/program.cpp $options
}
