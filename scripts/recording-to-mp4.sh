#!/bin/sh
# Turn a recording of remote help into a film: scripts/recording-to-mp4.sh RECORDING.fbs FILM.mp4
# [--speed 4]. Needs Xvfb, xtigervncviewer and ffmpeg. It takes as long as the recording plays,
# divided by the speed (the film itself is as long as the session was).
set -eu
here=$(cd -- "$(dirname -- "$0")/.." && pwd)
python="$here/.venv/bin/python"
[ -x "$python" ] || python=python3
PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" exec "$python" "$here/scripts/recording_to_mp4.py" "$@"
