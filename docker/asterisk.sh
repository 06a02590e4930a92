#!/bin/sh
# Start Asterisk in its container: put the secret into manager.conf, and let the group read new files.
set -eu
file=${AMI_SECRET_FILE:-/run/secrets/ami_secret}
conf=/etc/asterisk/manager.conf
secret=$(head -n 1 "$file")
case $secret in
'' | *[!0-9A-Za-z]*)
  echo "asterisk.sh: the first line of $file must be letters and digits" >&2
  exit 78
  ;;
esac
if grep -qx 'secret=change-me' "$conf"; then # not so after a restart of the same container
  sed -i "s/^secret=change-me\$/secret=$secret/" "$conf"
fi
grep -qx "secret=$secret" "$conf" || {
  echo "asterisk.sh: $conf has no line secret=change-me to put the secret into" >&2
  exit 78
}
umask 0027
exec asterisk -f -C /etc/asterisk/asterisk.conf
