"""Messages for the online tests: version `v` of a key says `v`, so that what is read tells which version it is.

Run as a program it is one writer: it writes versions of many keys, shuffled and doubled, and prints a line per batch.
"""

import random
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import polars as pl

from featurestore.online.message.codec import MessageLayout, WireField, decode, encode
from featurestore.online.redis.tier import RedisOnlineStore
from featurestore.online.tier import MaterializationState

GROUP = "plane_last_flight_hourly"
LAYOUT = MessageLayout((WireField(32, "v", pl.Int64()), WireField(33, "text", pl.String())), GROUP)
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
STATE = MaterializationState("table-1", 4, NOW)
AHEAD = MaterializationState("table-1", 5, NOW + timedelta(hours=1))
WEEK = timedelta(days=7)
TIMESTAMP = pl.Datetime("us", "UTC")
Version = tuple[int, int, int]
Item = TypeVar("Item")


def clock() -> datetime:
    """The tests' present moment."""
    return NOW


def moment(number: int) -> datetime:
    """The time that a small number stands for: seconds after a week before now."""
    return NOW - timedelta(days=7) + timedelta(seconds=number)


def times_frame(versions: Sequence[Version]) -> pl.DataFrame:
    """Versions as their three columns."""
    names = ("event_time", "knowledge_time", "created_at")
    columns = {name: [moment(version[i]) for version in versions] for i, name in enumerate(names)}
    return pl.DataFrame(columns, schema=dict.fromkeys(names, TIMESTAMP))


def messages_of(
    versions: Sequence[Version], fence: int = 0, deleted: Sequence[bool] | None = None, *, group: str = GROUP
) -> list[bytes]:
    """One message per version; its value is the number of the version's creation."""
    rows = times_frame(versions).with_columns(
        pl.Series("is_deleted", deleted or [False] * len(versions), dtype=pl.Boolean),
        pl.Series("v", [version[2] for version in versions], dtype=pl.Int64),
        pl.Series("text", ["x" * (version[2] % 40) for version in versions], dtype=pl.String),
    )
    return encode(replace(LAYOUT, group=group), rows, schema_number=1, fence=fence)


def plain(number: int) -> Version:
    """The version whose three times are all `number`."""
    return (number, number, number)


def removed_frame(keys: Sequence[bytes], versions: Sequence[Version]) -> pl.DataFrame:
    """Removed versions as `write` takes them."""
    return times_frame(versions).insert_column(0, pl.Series("key", keys, dtype=pl.Binary))


def decoded(messages: Sequence[bytes | None], group: str = GROUP) -> pl.DataFrame:
    """Replies as columns."""
    return decode({1: replace(LAYOUT, group=group)}, messages)


def key_of(number: int) -> bytes:
    """The key of entity `number`."""
    return f"{GROUP}:{number}".encode()


def write(store: RedisOnlineStore, numbers: list[int], version: int = 5, fence: int = 0) -> None:
    """Give some keys a version."""
    keys = [key_of(number) for number in numbers]
    store.write(GROUP, keys, messages_of([plain(version)] * len(keys), fence), epoch=store.ensure_epoch(), ttl=WEEK)


def shuffled_twice(items: Sequence[Item], seed: int | str) -> list[Item]:
    """Each item twice, in an order that `seed` decides."""
    doubled = [*items, *items]
    random.Random(seed).shuffle(doubled)
    return doubled


def write_shuffled(url: str, epoch: str, seed: int, key_count: int, versions: int, pause_seconds: float) -> None:
    """Write all versions of all keys, each twice, in an order that `seed` decides; print what became of each batch."""
    store = RedisOnlineStore(url, clock, write_batch_keys=50)
    pairs = shuffled_twice([(key, version) for key in range(key_count) for version in range(1, versions + 1)], seed)
    for start in range(0, len(pairs), 200):
        batch = pairs[start : start + 200]
        messages = messages_of([plain(version) for _, version in batch])
        result = store.write(GROUP, [key_of(key) for key, _ in batch], messages, epoch=epoch, ttl=None)
        print(result.written, result.left, len(result.refused), flush=True)
        time.sleep(pause_seconds)


if __name__ == "__main__":
    url, epoch, seed, key_count, versions, pause_seconds = sys.argv[1:]
    write_shuffled(url, epoch, int(seed), int(key_count), int(versions), float(pause_seconds))
