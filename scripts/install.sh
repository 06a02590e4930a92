#!/usr/bin/env bash
# Install contactd, without its tests and tools, into a Python environment of its own.
#
#   scripts/install.sh PREFIX     e.g. /opt/contactd: the command is then PREFIX/bin/contactd
#
# Needs python3 (3.11 or later), python3-venv and npm. Safe to repeat: that is the upgrade. The manual,
# the Dockerfile and tests/real/test_installation.py all install with this script.
set -euo pipefail
cd "$(dirname "$0")/.."
prefix=${1:?usage: scripts/install.sh PREFIX}

fail() {
  printf 'install: %s\n' "$1" >&2
  exit 69
}

python=$(command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3) ||
  fail "python3 is missing: apt-get install python3 python3-venv"
"$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
  fail "$python is older than 3.11 or has no venv: apt-get install python3 python3-venv"

scripts/vendor.sh
[ -x "$prefix/bin/python" ] || "$python" -m venv "$prefix"
pip=("$prefix/bin/python" -m pip install -q --disable-pip-version-check -c constraints.txt)
rm -rf build/lib build/bdist.* # what setuptools left there would be packed again
"${pip[@]}" '.[aliyun]'
"$prefix/bin/python" -m compileall -q "$prefix/lib"
