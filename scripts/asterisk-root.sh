#!/usr/bin/env bash
# Build, once, the root that holds Asterisk 22 (Debian forky), and print its path.
#
# Debian bookworm and trixie ship no Asterisk; forky does. The root lives in the user's cache, outside
# the clone, so that a clean checkout finds it again; a marker with this recipe's hash tells when to
# rebuild. Needs root (debootstrap, chroot).
set -euo pipefail

INCLUDE=asterisk
recipe=$(sha256sum "$0" | cut -c1-12)
cache=${CONTACTD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/contactd}
root=$cache/asterisk-$recipe

if [ -f "$root/.contactd-complete" ]; then
  echo "$root"
  exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "asterisk-root: needs root (debootstrap and chroot). Run as root, or use the compose file: it runs" >&2
  echo "  the same Asterisk in a debian:forky container (see docs/operations.md)." >&2
  exit 77
fi

mkdir -p "$cache"
exec 9>"$cache/asterisk-root.lock"
flock 9
if [ -f "$root/.contactd-complete" ]; then # somebody else built it while we waited
  echo "$root"
  exit 0
fi
rm -rf "$root.part"
echo "asterisk-root: building $root (about a minute, 500 MB, once)" >&2
# bookworm's debootstrap does not know the name forky; every Debian suite uses the script of sid.
[ -e /usr/share/debootstrap/scripts/forky ] || ln -s sid /usr/share/debootstrap/scripts/forky
if ! debootstrap --variant=minbase --include="$INCLUDE" forky "$root.part" >"$cache/debootstrap.log" 2>&1; then
  tail -n 20 "$cache/debootstrap.log" >&2
  echo "asterisk-root: debootstrap failed; the whole log is $cache/debootstrap.log" >&2
  exit 70
fi
rm -rf "$root.part"/var/cache/apt/archives/*.deb "$root.part"/var/lib/apt/lists/*
touch "$root.part/.contactd-complete"
mv "$root.part" "$root"
echo "$root"
