#!/usr/bin/env bash
# Install everything the demo, the tests and the benchmarks need. Quiet, safe to repeat, done once.
#
#   scripts/setup.sh [serve|test]     serve: what the demo needs; test (default): everything
#
# Needs root on Debian for the packages and for Asterisk's root; without root it says what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-test}
cache=${CONTACTD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/contactd}
mkdir -p "$cache" build
# One set-up at a time: two would fight over dpkg and over the same files.
exec 8>"$cache/setup.lock"
flock 8

step() { printf '  %-11s %s\n' "$1" "$2" >&2; }
fail() {
  printf 'setup: %s\n' "$1" >&2
  exit "${2:-70}"
}

# name of a file that the package brings : name of the Debian package
needs=(
  /usr/sbin/debootstrap:debootstrap /usr/bin/espeak-ng:espeak-ng /usr/bin/sox:sox
  /usr/bin/flock:util-linux /usr/bin/npm:npm
)
if [ "$what" = test ]; then
  needs+=(
    /usr/bin/chromium:chromium /usr/bin/redis-server:redis-server /usr/bin/sipp:sip-tester
    /usr/share/postgresql-common/pg_wrapper:postgresql
    /usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc:fonts-noto-cjk
    # remote help: a user's desktop, what shares it, the relay of media, the player of recordings
    /usr/bin/Xvfb:xvfb /usr/bin/x11vnc:x11vnc /usr/bin/X0tigervnc:tigervnc-scraping-server
    /usr/bin/xtigervncviewer:tigervnc-viewer /usr/bin/xterm:xterm /usr/bin/xset:x11-xserver-utils
    /usr/bin/turnserver:coturn /usr/bin/ffmpeg:ffmpeg /usr/sbin/ip:iproute2
    /usr/share/doc/python3-tk/copyright:python3-tk
  )
fi
missing=()
for need in "${needs[@]}"; do
  file=${need%%:*} package=${need##*:}
  [ -e "$file" ] || command -v "$(basename "$file")" >/dev/null 2>&1 || missing+=("$package")
done
python=$(command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3 || true)
{ [ -n "$python" ] && "$python" -c 'import ensurepip, venv, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; } ||
  missing+=(python3 python3-venv)
if [ ${#missing[@]} -gt 0 ]; then
  [ "$(id -u)" -eq 0 ] || fail "these Debian packages are missing: ${missing[*]}
  install them as root:  apt-get update && apt-get install --no-install-recommends ${missing[*]}
  or run this as root; or use the compose file, which needs Docker only (docs/operations.md)" 77
  command -v apt-get >/dev/null || fail "this set-up knows Debian's apt-get only; use the compose file (docs/operations.md)" 69
  step packages "${missing[*]}"
  log=$cache/apt.log
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } \
    >"$log" 2>&1 </dev/null || { tail -n 15 "$log" >&2; fail "apt-get failed; the whole log is $log"; }
  python=$(command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
fi

# `done_once NAME FILES…` is true when NAME was done for exactly these files' contents.
stamp_of() { cat -- "$@" | sha256sum | cut -c1-16; }
stamped() { [ "$(cat "build/$1.stamp" 2>/dev/null)" = "$2" ]; }
stamp() { echo "$2" >"build/$1.stamp"; }

key=$(stamp_of pyproject.toml constraints.txt)-$("$python" -V 2>&1 | tr ' ' -)
if ! stamped python "$key" || [ ! -x .venv/bin/python ]; then
  step python "$("$python" -V 2>&1), packages of constraints.txt"
  rm -rf .venv
  "$python" -m venv .venv
  .venv/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]' >build/pip.log 2>&1 ||
    { tail -n 15 build/pip.log >&2; fail "pip failed; the whole log is build/pip.log"; }
  stamp python "$key"
fi

key=$(stamp_of package.json package-lock.json scripts/vendor.sh)
if ! stamped vendor "$key" || [ ! -d contactd/web/static/vendor ]; then
  step browser "JavaScript packages of package-lock.json"
  scripts/vendor.sh >build/npm.log 2>&1 || { tail -n 15 build/npm.log >&2; fail "npm failed; the whole log is build/npm.log"; }
  stamp vendor "$key"
fi

if [ "$what" = test ]; then
  key=$(stamp_of package.json package-lock.json)
  if ! stamped peers "$key" || [ ! -d build/peers/node_modules ]; then
    step peers "what the tests talk to, of package-lock.json"
    rm -rf build/peers && mkdir build/peers && cp package.json package-lock.json build/peers/
    (cd build/peers && npm ci --ignore-scripts --no-audit --no-fund --silent) >build/npm-peers.log 2>&1 ||
      { tail -n 15 build/npm-peers.log >&2; fail "npm failed; the whole log is build/npm-peers.log"; }
    stamp peers "$key"
  fi
fi

step prompts "spoken texts, $(grep -c '^zh *=' etc/prompts.toml || true) in two languages"
.venv/bin/python scripts/prompts.py "$cache/sounds" --people etc/desk.toml >build/prompts.log 2>&1 ||
  { tail -n 15 build/prompts.log >&2; fail "making the prompts failed; the whole log is build/prompts.log"; }

if [ "$(id -u)" -eq 0 ]; then
  root=$(scripts/asterisk-root.sh)
  step asterisk "$(chroot "$root" asterisk -V) in $root"
else
  fail "building and running Asterisk here needs root (chroot). Run as root; or use the compose file (docs/operations.md)" 77
fi
