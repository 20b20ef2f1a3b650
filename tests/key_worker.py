"""What a server's worker processes do in the tests of API keys: ask over and over whether a key is good.

`python -m tests.key_worker WHAT`, with URL, KEY in the environment; what was seen goes to stdout as JSON.
"""

import json
import os
import sys
import time
from datetime import UTC, datetime
from typing import Any

from featurestore.auth.authenticator import SERVER_LOCK_SECONDS, Authenticator
from featurestore.auth.book import KeyBook
from featurestore.auth.known import STALE_SECONDS, KnownKeys
from featurestore.errors import NotAuthenticated
from featurestore.metadata.database import Database

NOW = datetime(2026, 3, 10, 6, tzinfo=UTC)
STEP_SECONDS = 0.002
LONGEST_SECONDS = 60
PATIENCE_SECONDS = 30.0
"""For a check: a busy machine is not to be taken for a database that does not answer, which gives keys their grace."""


def authenticator(url: str) -> Authenticator:
    book = KeyBook(Database(url, lock_seconds=SERVER_LOCK_SECONDS))
    return Authenticator(KnownKeys(book, wait_seconds=PATIENCE_SECONDS))


def ask(url: str, key: str) -> dict[str, Any]:
    """Say 'ready' when the key is first good, then ask until it is not.

    Returns:
        When the last question was asked that was answered by yes, how many there were, and how long the longest took.
    """
    mine, count, longest = authenticator(url), 0, 0.0
    mine.start()
    end = time.time() + LONGEST_SECONDS
    while (began := time.time()) < end:
        try:
            mine.authenticate(f"Bearer {key}", now=NOW)
        except NotAuthenticated:
            break
        longest = max(longest, time.time() - began)
        last, count = began, count + 1
        if count == 1:
            print("ready", flush=True)
        time.sleep(STEP_SECONDS)
    mine.close()
    return {"last": last, "count": count, "longest": longest}


def fork(url: str, key: str) -> dict[str, Any]:
    """Use one authenticator in a parent and, after a fork, in its child, which has none of the parent's threads."""
    mine = authenticator(url)
    mine.start()
    child = os.fork()
    if child == 0:
        time.sleep(STALE_SECONDS)  # what the parent read is too old by now
        allowed = mine.authenticate(f"Bearer {key}", now=NOW).key_id in key
        KeyBook(Database(url)).revoke(key, person="child", reason="test")
        os._exit(0 if allowed and _is_refused(mine, key) else 1)
    status = os.waitpid(child, 0)[1]
    return {"status": status, "is_refused": _is_refused(mine, key)}


def _is_refused(mine: Authenticator, key: str) -> bool:
    """Whether it is within a second, by when it was asked for."""
    end, began = time.monotonic() + 1, 0.0
    while began < end:
        began = time.monotonic()
        try:
            mine.authenticate(f"Bearer {key}", now=NOW)
        except NotAuthenticated:
            return True
        time.sleep(STEP_SECONDS)
    return False


if __name__ == "__main__":
    work = {"ask": ask, "fork": fork}[sys.argv[1]]
    print(json.dumps(work(os.environ["URL"], os.environ["KEY"])))
