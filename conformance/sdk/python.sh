#!/bin/sh
# Prints the path of a Python of at least 3.12 that has pip: one that is here, or else one from Debian's trixie suite,
# unpacked under DIR and installed nowhere.
#
# usage: python.sh [--apt] DIR        --apt: do not look for one that is here
set -eu

fits() {
  "$1" -c 'import sys, pip; sys.exit(sys.version_info < (3, 12))' 2>/dev/null
}

one_that_is_here() {
  for name in python3 python3.12 python3.13 python3.14; do
    found=$(command -v "$name") && fits "$found" && echo "$found" && return
  done
  for found in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[2-9]*/bin/python3; do
    fits "$found" && echo "$found" && return
  done
  return 1
}

# The first mirror of Debian's main archive that the system itself uses.
mirror() {
  cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
    grep -E '^(deb|URIs:) ' | grep -oE 'https?://[^ ]*/debian/?( |$)' | head -n 1 | tr -d ' '
}

# apt-get with everything it keeps under $dir/apt: its lists, its archive and an empty idea of what is installed.
private_apt() {
  apt-get -qq -o Dir::Etc="$dir/apt" -o Dir::Etc::trustedparts="$dir/apt/keys" -o Dir::Etc::parts="$dir/apt/none" \
    -o Dir::State="$dir/apt/state" -o Dir::State::status="$dir/apt/status" -o Dir::Cache="$dir/apt/cache" \
    -o APT::Sandbox::User=root -o APT::Install-Recommends=false "$@" >&2
}

from_trixie() {
  dir=$1
  root=$dir/root
  mirror=$(mirror)
  [ -n "$mirror" ] || { echo "no Debian mirror in /etc/apt" >&2; return 1; }
  rm -rf "$dir/apt" "$root"
  mkdir -p "$dir/apt/keys" "$dir/apt/none" "$dir/apt/preferences.d" "$dir/apt/state/lists/partial" "$dir/apt/cache/archives/partial" "$root"
  cp /usr/share/keyrings/debian-archive-*.gpg "$dir/apt/keys"
  : >"$dir/apt/status"
  echo "deb $mirror trixie main" >"$dir/apt/sources.list"
  private_apt update
  private_apt install --yes --download-only python3.13 python3-pip-whl
  for package in "$dir"/apt/cache/archives/*.deb; do
    dpkg -x "$package" "$root"
  done
  # WHY: its libraries are newer than this system's, so it is started by the loader that came with them.
  libraries=$(dirname "$(find "$root/usr/lib" -name 'libc.so.6' | head -n 1)")
  loader=$(find "$libraries" -name 'ld-linux-*' | head -n 1)
  cat >"$root/usr/bin/python" <<WRAPPER
#!/bin/sh
exec "$loader" --library-path "$libraries" --argv0 "$root/usr/bin/python" "$root/usr/bin/python3.13" "\$@"
WRAPPER
  chmod +x "$root/usr/bin/python"
  "$root/usr/bin/python" -m zipfile -e "$root"/usr/share/python-wheels/pip-*.whl "$root/usr/lib/python3/dist-packages"
  rm -rf "$dir/apt"
}

apt=
[ "${1:-}" != --apt ] || { apt=yes; shift; }
[ $# -eq 1 ] || { echo "usage: python.sh [--apt] DIR" >&2; exit 2; }
mkdir -p "$1"
dir=$(cd "$1" && pwd)
if [ -z "$apt" ] && one_that_is_here; then
  exit 0
fi
fits "$dir/root/usr/bin/python" || from_trixie "$dir"
fits "$dir/root/usr/bin/python" || { echo "Python from trixie does not start" >&2; exit 1; }
echo "$dir/root/usr/bin/python"
