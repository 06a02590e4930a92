#!/usr/bin/env bash
# Install what the mail benchmarks measure contactd against. Quiet, safe to repeat, done once.
#
#   scripts/bench-peers.sh [postfix] [roundup] [rt]      default: all three
#
# postfix   Debian's packages postfix and swaks; nothing of it is configured or started
# roundup   Roundup in a Python environment of its own, below the cache folder
# rt        Request Tracker 5 in a root of its own below the cache folder: it brings 260 packages
#
# Prints the folder of each. Needs root on Debian. A folder is named after the recipe that made it:
# another recipe builds it anew.
set -euo pipefail

ROUNDUP=2.6.0
RT_PACKAGES=(request-tracker5 rt5-clients rt5-standalone rt5-db-sqlite rt5-db-postgresql msmtp-mta)
cache=${CONTACTD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/contactd}/peers
mkdir -p "$cache"
exec 9>"$cache/lock" # two at a time would fight over dpkg
flock 9

step() { printf '  %-11s %s\n' "$1" "$2" >&2; }
fail() {
  printf 'bench-peers: %s\n' "$1" >&2
  exit "${2:-70}"
}
# $1 a function, the rest is what else its result depends on.
recipe() {
  { declare -f "$1"; printf '%s\n' "$@"; } | sha256sum | cut -c1-12
}
# $1 name of the log, the rest a command: silent unless it fails.
quietly() {
  local peer=$1 log=$cache/$1.log
  shift
  "$@" >>"$log" 2>&1 </dev/null || { tail -n 15 "$log" >&2; fail "$peer: $1 failed; the whole log is $log"; }
}
needs_root() {
  [ "$(id -u)" -eq 0 ] || fail "$1 needs root: run this script as root" 77
  command -v apt-get >/dev/null || fail "$1 comes from Debian's packages: there is no apt-get here" 69
}

postfix() {
  # No `command -v`: that would find this function.
  if [ -x /usr/sbin/postfix ] && [ -x /usr/sbin/smtp-source ] && [ -x /usr/bin/swaks ]; then
    echo /usr/sbin
    return
  fi
  needs_root postfix
  step postfix "Debian's packages postfix and swaks"
  local denies=/usr/sbin/policy-rc.d
  if [ ! -e "$denies" ]; then # so that dpkg starts no daemon
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$denies"
    chmod 755 "$denies"
  fi
  printf 'postfix postfix/main_mailer_type select No configuration\n' | debconf-set-selections
  quietly postfix apt-get update -qq -o DPkg::Lock::Timeout=300
  quietly postfix env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq -o DPkg::Lock::Timeout=300 \
    --no-install-recommends postfix swaks
  echo /usr/sbin
}

roundup() {
  local folder
  folder=$cache/roundup-$(recipe roundup "$ROUNDUP")
  if [ ! -f "$folder/.complete" ]; then
    step roundup "$ROUNDUP from PyPI, in $folder"
    rm -rf "$folder"
    quietly roundup "${PYTHON:-python3}" -m venv "$folder"
    quietly roundup "$folder/bin/python" -m pip install -q --disable-pip-version-check "roundup==$ROUNDUP"
    touch "$folder/.complete"
  fi
  echo "$folder"
}

rt() {
  local folder
  folder=$cache/rt-$(recipe rt "${RT_PACKAGES[@]}")
  if [ -f "$folder/.complete" ]; then
    echo "$folder"
    return
  fi
  needs_root rt
  step rt "Debian's request-tracker5, in $folder (some minutes, 700 MB, once)"
  command -v debootstrap >/dev/null || fail "debootstrap is missing: run scripts/setup.sh" 69
  rm -rf "$folder.part"
  quietly rt debootstrap --variant=minbase bookworm "$folder.part"
  printf '#!/bin/sh\nexit 101\n' >"$folder.part/usr/sbin/policy-rc.d"
  chmod 755 "$folder.part/usr/sbin/policy-rc.d"
  # The bench makes a database of its own for each run.
  printf 'request-tracker5 request-tracker5/dbconfig-install boolean false\n' |
    chroot "$folder.part" debconf-set-selections
  quietly rt chroot "$folder.part" env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 \
    apt-get install -y -qq --no-install-recommends "${RT_PACKAGES[@]}"
  rm -rf "$folder.part"/var/cache/apt/archives/*.deb "$folder.part"/var/lib/apt/lists/*
  touch "$folder.part/.complete"
  mv "$folder.part" "$folder"
  echo "$folder"
}

[ $# -gt 0 ] || set -- postfix roundup rt
for peer in "$@"; do
  case $peer in
    postfix | roundup | rt) "$peer" ;;
    *) fail "there is no peer $peer: postfix, roundup, rt" 64 ;;
  esac
done
