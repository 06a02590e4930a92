#!/usr/bin/env bash
# Run every test, `$1` at a time. What fails is run once more by itself, as CPython does with its own
# tests (`regrtest --rerun`): two cores play a PBX, a browser, two databases and a desktop at once,
# and stand still for seconds now and then. What then passes is named at the end: it is a race, of the
# test or of ours, and somebody's work. More than a few that fail are no race.
set -euo pipefail
cd "$(dirname "$0")/.."
most=5
pytest=(.venv/bin/python -m pytest -q)
failed=build/pytest/v/cache/lastfailed

code=0
rm -f "$failed"
"${pytest[@]}" -n "$1" --dist loadfile --no-loadscope-reorder tests || code=$?
[ "$code" -eq 1 ] && [ -s "$failed" ] || exit "$code" # 1: tests failed; else it is not about tests
mapfile -t names < <(.venv/bin/python -c \
  'import json, sys; print(*json.load(open(sys.argv[1])), sep="\n")' "$failed")
count=${#names[@]}
if [ "$count" -gt "$most" ]; then
  echo "test: $count failed, more than the $most that are tried again" >&2
  exit 1
fi
echo "test: $count failed beside others; once more, alone" >&2
# By name: of what is no test (a worker that broke off) there is none, which is a failure, too.
"${pytest[@]}" "${names[@]}"
printf 'test: UNSTEADY, failed beside others and passed alone; find out why:\n' >&2
printf '%s\n' "${names[@]}" >&2
