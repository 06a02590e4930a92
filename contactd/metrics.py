"""Every Prometheus metric contactd exports; labels come from enums and configured names only."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

CONTACTS: Final = Counter(
    "contactd_contacts_total", "Contacts filed, by medium and by how they were learned of",
    ["medium", "source"],
)  # fmt: skip
FILING: Final = Histogram(
    "contactd_filing_seconds",
    "From the first sight of a contact to its commit",
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.3, 1, 3),
)
OUTBOX_LAG: Final = Gauge("contactd_outbox_lag_seconds", "Age of the oldest outbox row that is due")
OUTBOX_PARKED: Final = Gauge("contactd_outbox_parked", "Outbox rows given up on: look at them")
AMI_EVENTS: Final = Counter("contactd_ami_events_total", "AMI events received", ["pbx"])
AMI_CONNECTED: Final = Gauge("contactd_ami_connected", "1 while logged in to the PBX", ["pbx"])
AMI_RECONNECTS: Final = Counter("contactd_ami_reconnects_total", "Logins to the PBX", ["pbx"])
AGI_REQUESTS: Final = Counter(
    "contactd_agi_requests_total", "Questions of the dialplan, by what became of them",
    ["script", "outcome"],
)  # fmt: skip
PEERS_REFUSED: Final = Counter(
    "contactd_peers_refused_total", "Connections cut by a limit", ["listener", "reason"]
)
REPLAY_ROWS: Final = Counter(
    "contactd_replay_rows_total", "CEL and queue_log rows read", ["pbx", "source"]
)
REPLAY_BAD_ROWS: Final = Counter(
    "contactd_replay_bad_rows_total", "CEL and queue_log rows that could not be read",
    ["pbx", "source"],
)  # fmt: skip
REPAIRED: Final = Counter(
    "contactd_contacts_repaired_total", "Contacts that only the PBX's records brought", ["pbx"]
)
ROSTER_CHANGES: Final = Counter(
    "contactd_roster_changes_total", "Queue members added, removed or moved", ["pbx", "change"]
)
PAGES: Final = Counter(
    "contactd_notifications_total",
    "Messages to people, by medium and outcome",
    ["medium", "outcome"],
)
WEBHOOKS: Final = Counter(
    "contactd_webhook_deliveries_total", "Tries to tell another system of a ticket", ["outcome"]
)
TEXT_SEGMENTS: Final = Counter(
    "contactd_text_segments_total", "Segments of texts that were handed over: what is paid for",
    ["gateway"],
)  # fmt: skip
DUPLICATES: Final = Counter(
    "contactd_notifications_repeated_total",
    "Messages sent again because nobody could say whether they had gone out",
    ["medium"],
)
BREACHES: Final = Counter("contactd_sla_breaches_total", "Promises that were broken", ["metric"])
LEDGER_DIFFERENCE: Final = Gauge(
    "contactd_ledger_difference",
    "Calls in the PBX's records without a contact and contacts without a call, today or yesterday",
    ["pbx"],
)
SERVICE_UP: Final = Gauge("contactd_service_up", "1 up, 0.5 degraded, 0 down", ["component"])
HTTP_SECONDS: Final = Histogram(
    "contactd_http_seconds",
    "From a request's head to its answer being ready, by the route's pattern",
    ["method", "route", "status"],
    buckets=(0.005, 0.02, 0.1, 0.5, 2, 10),
)
HTTP_STREAMS: Final = Gauge("contactd_http_streams", "Open live pages")
DESK_STREAMS: Final = Gauge("contactd_desk_streams", "Open pages of the workbench")
HANDLER_FAILURES: Final = Counter(
    "contactd_handler_failures_total", "Events whose handler failed unexpectedly: see the log",
    ["where"],
)  # fmt: skip
REMOTE_SESSIONS: Final = Gauge("contactd_remote_sessions", "Remote sessions that show a screen")
REMOTE_BYTES: Final = Counter("contactd_remote_bytes_total", "Bytes of screens that were shown")
REMOTE_ENDINGS: Final = Counter(
    "contactd_remote_endings_total", "Remote sessions that ended here, by why", ["ending"]
)
LOOP_LAG: Final = Gauge(
    "contactd_loop_lag_seconds", "Worst lateness of a 20 Hz ticker in the last minute"
)
