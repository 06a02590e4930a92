#!/bin/sh
# Make the secrets that compose.yaml names, as files in var/secrets (never committed). What exists stays.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
folder=$root/var/secrets
# Other users of this host stay out by the folder; the containers' users must be able to read the files.
mkdir -p "$folder"
chmod 0700 "$folder"
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
keep() {
  [ -s "$folder/$1" ] || printf '%s\n' "$2" >"$folder/$1"
  chmod 0444 "$folder/$1"
}
keep ami_secret "$(random)"
keep postgres_password "$(random)"
keep database_url "postgresql://contactd:$(head -n 1 "$folder/postgres_password")@postgres/contactd"
