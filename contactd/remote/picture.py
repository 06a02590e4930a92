"""What stands between a VNC server and an engineer's picture: the filter and the recorder."""

import time

from contactd.remote import fbs, rfb
from contactd.remote.legs import Filter, Recorder, Tape
from contactd.tickets.remote import Leg


def make_filter(leg: Leg) -> Filter:
    return rfb.Filter(leg.rights)


def make_recorder(filter_: Filter, tape: Tape) -> Recorder:
    assert isinstance(filter_, rfb.Filter)  # noqa: S101 - made above
    return fbs.Recorder(filter_, tape.write, time.monotonic)
