"""What both ends of the wire must call by the same name: media types, headers, statuses, columns of an Arrow body.

Plain values, so that a client needs nothing of what the server is made of. Not here: how bodies are written or read.
"""

import re

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
PROTOBUF = "application/x-protobuf"
INVALID = "INVALID"
"""What Feast's contract calls a value that nobody could speak for; the library says UNAVAILABLE."""
STATUS, EVENT_TIME, AGE_SECONDS, TIER = "__status", "__event_time", "__age_seconds", "__tier"
"""Endings of the Arrow columns that stand beside a feature's values; the last two only where they are asked for."""
CAUSES = "causes"
"""Of an Arrow body's schema metadata and of the JSON body: by group, why its values are INVALID; only where it is asked for."""
FRESHNESS = "freshness"
"""Of an Arrow body's schema metadata, and of the JSON body where it is told: state, lag and SLO of each group, as JSON."""
FRESHNESS_HEADER = "X-Freshness"
"""Of a request: strict, degrade or stale_ok, where its body does not say so."""
STATE_HEADER = "X-Freshness-State"
"""Of an answer: the worst group's state, with its name, lag and SLO in seconds as parameters (RFC 9651)."""
TIMEOUT_HEADER = "X-Request-Timeout-Ms"
IDEMPOTENCY_HEADER = "Idempotency-Key"
IDEMPOTENCY_KEY = re.compile(r"[A-Za-z0-9_.:-]{1,200}")
IDEMPOTENCY_FORM = "1 to 200 letters, digits and characters of '_.:-'"
