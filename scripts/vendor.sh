#!/bin/sh
# Copy what the pages load from npm packages to contactd/web/static/vendor (git-ignored). Says
# nothing and does nothing when that has been done for this package-lock.json already.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
vendor=$root/contactd/web/static/vendor
recipe=$(cat "$root/package-lock.json" "$0" | sha256sum | cut -d' ' -f1)
[ "$(cat "$vendor/.recipe" 2>/dev/null || true)" = "$recipe" ] && exit 0

command -v npm >/dev/null || {
    echo "vendor.sh: npm is missing: apt-get install npm" >&2
    exit 1
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$root/package.json" "$root/package-lock.json" "$work/"
(cd "$work" && npm ci --omit=dev --ignore-scripts --no-audit --no-fund --silent) || {
    echo "vendor.sh: npm ci failed: does npm's registry answer (npm ping)?" >&2
    exit 1
}
rm -rf "$vendor"
mkdir -p "$vendor"
cp "$work/node_modules/htmx.org/dist/htmx.min.js" "$vendor/htmx.js"
cp "$work/node_modules/uplot/dist/uPlot.iife.min.js" "$vendor/uplot.js"
cp "$work/node_modules/uplot/dist/uPlot.min.css" "$vendor/uplot.css"
mkdir "$vendor/novnc"
cp -r "$work/node_modules/@novnc/novnc/core" "$work/node_modules/@novnc/novnc/vendor" "$vendor/novnc/"
cp "$work/node_modules/@novnc/novnc/docs/LICENSE.MPL-2.0" "$vendor/novnc/"
find "$vendor/novnc" -name '*.md' -delete
echo "$recipe" >"$vendor/.recipe"
