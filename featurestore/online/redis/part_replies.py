"""What a server's answers say of the keys asked: messages, and which misses mean that there is none. Not here: asking."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from featurestore.online.published import read_published
from featurestore.online.records import StateRecord, is_warm, read_state
from featurestore.online.tier import Mark, Replies

Values = list[Any]
"""Bytes, None for nothing, ELSEWHERE or FOREIGN."""
ELSEWHERE = 0
"""What `read.lua` answers for a key whose slot is with another node by now."""
FOREIGN = 1
"""What it answers for a key that holds something else than a message: nobody can say what the entity has."""


@dataclass(frozen=True, slots=True)
class Source:
    """The part that answered.

    Args:
        part: Its name.
        address: Where it is, for people.
        covers: Whether a state that it recorded speaks for all the keys that it has now.
    """

    part: str
    address: str
    covers: Callable[[StateRecord], bool]


def sorted_out(
    source: Source, counts: Mapping[str, int], answers: Sequence[Values], batch_keys: int, told: Sequence[str] = ()
) -> dict[str, Replies]:
    """Each group's replies, from the answers to all batches in order.

    Args:
        source: Who answered.
        counts: How many keys of each group were asked, in that order.
        answers: The part's epoch, each group's state, what was published of some groups, then what the batch's keys hold.
        batch_keys: Keys in each batch but the last.
        told: The groups whose published freshness was asked for.
    """
    first = 1 + len(counts) + len(told)
    messages = list(chain.from_iterable(answer[first:] for answer in answers))
    found, start = {}, 0
    for i, (group, asked) in enumerate(counts.items()):
        last = max(start, start + asked - 1)
        records = [(answer[0], answer[1 + i]) for answer in answers[start // batch_keys : last // batch_keys + 1]]
        own = messages[start : start + asked]
        found[group] = _replies(
            source, group, own, records or [_records_of(answers[-1], i)], start % batch_keys, batch_keys
        )
        start += asked
    for at, group in enumerate(told, 1 + len(counts)):
        found[group] = replace(found[group], published=read_published(answers[0][at]))
    return found


def _records_of(answer: Values, group: int) -> tuple[bytes | None, bytes | None]:
    return answer[0], answer[1 + group]


def _replies(
    source: Source,
    group: str,
    messages: Values,
    records: Sequence[tuple[bytes | None, bytes | None]],
    start: int,
    batch_keys: int,
) -> Replies:
    """What was found for a group; `records` are those of its batches, the first of which it begins at `start`."""
    lost = [at for at, message in enumerate(messages) if message == ELSEWHERE] if ELSEWHERE in messages else []
    foreign = [at for at, message in enumerate(messages) if message == FOREIGN] if FOREIGN in messages else []
    for at in (*lost, *foreign):
        messages[at] = None
    misses = [at for at, message in enumerate(messages) if message is None] if None in messages else []
    known = [_known(source, epoch, record) for epoch, record in records]
    if any(one is None for one in known):
        return Replies(
            messages, frozenset(misses), cause=f"{source.address} holds no copy of {group}" if misses else ""
        )
    state = known[-1].state if known[-1] is not None else None
    if not misses:
        return Replies(messages, state=state)
    # A step may have begun between two batches: a miss is vouched for by the record that was read with it.
    missed: dict[bytes, list[int]] = {}
    for at in set(misses).difference(lost, foreign):
        missed.setdefault(records[(start + at) // batch_keys][1] or b"", []).append(at)
    marks = [Mark(source.part, sorted(at), record, read_state(record).reached) for record, at in missed.items()]
    causes = [f"{source.address} has given their slots to another node"] if lost else []
    causes += (
        [f"{source.address} holds something else than messages of {group} under some of its keys"] if foreign else []
    )
    return Replies(messages, frozenset([*lost, *foreign]), cause="; ".join(causes), marks=tuple(marks), state=state)


def _known(source: Source, epoch: bytes | None, record: bytes | None) -> StateRecord | None:
    if record is None or not is_warm(epoch, record):
        return None
    known = read_state(record)
    return known if source.covers(known) else None


def unanswered(keys: Sequence[bytes], cause: str) -> Replies:
    """Replies where nobody could speak for any key."""
    return Replies([None] * len(keys), frozenset(range(len(keys))), cause=cause if keys else "")
