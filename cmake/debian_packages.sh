# SPDX-License-Identifier: MIT
# Sourced by examples/run.sh and tests/run.sh.

# True if a package is there; a program may also have come another way than by its package.
have_package() {
  case $1 in
    cmake | g++) command -v "$1" ;;
    ninja-build) command -v ninja ;;
    clang) command -v clang++ ;;
    *) dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>&1 | grep -qx installed ;;
  esac > /dev/null
}

# require_packages package...: installs the Debian packages that are missing when run as root, else says how to and fails.
require_packages() {
  local package missing=()
  if ! command -v dpkg-query > /dev/null; then
    echo "This is not Debian; what is needed has these names there: $*"
    return 0
  fi
  for package; do
    have_package "$package" || missing+=("$package")
  done
  if ((${#missing[@]} == 0)); then
    return 0
  fi
  if (($(id -u) != 0)); then
    echo "Some packages are missing. Install them with this line, then run this script again:" >&2
    echo "  sudo apt-get install --no-install-recommends ${missing[*]}" >&2
    return 1
  fi
  echo "Installing ${missing[*]}"
  local install=(apt-get install -y -qq --no-install-recommends "${missing[@]}") log
  log=$(mktemp)
  export DEBIAN_FRONTEND=noninteractive
  # The second try is for a machine whose package lists are missing or old.
  if ! "${install[@]}" < /dev/null > "$log" 2>&1 && ! { apt-get update -qq && "${install[@]}"; } < /dev/null > "$log" 2>&1; then
    cat "$log" >&2
    rm "$log"
    return 1
  fi
  rm "$log"
}
