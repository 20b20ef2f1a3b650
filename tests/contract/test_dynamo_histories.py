"""The two-tier histories on a real table, request by request; and several processes that write to one table at once.

`test_two_tier_histories` runs the same histories on a model of what a conditional request can do. Here the requests are those that
the tier sends, each alone, so that writers are held up between any two of them, come late, and have requests delivered twice.
"""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError

from featurestore.online.batch import prepare_batch
from featurestore.online.dynamo.failures import CONDITION_FAILED, code_of
from featurestore.online.dynamo.items import Offer, Place, message_of, offers_of
from featurestore.online.dynamo.provision import provision
from featurestore.online.dynamo.rule import Conditional, Outcome, Stored, first_request, next_request
from featurestore.online.dynamo.tier import DynamoTier
from tests.contract import dynamo
from tests.contract.online_rows import GROUP, NOW, Version, clock, decoded, key_of, messages_of, removed_frame
from tests.contract.test_online_writers import Step
from tests.contract.test_two_tier_histories import KEYS, Life, served_version
from tests.scale import cases

ROOT = Path(__file__).parents[2]
WRITER = Path(__file__).with_name("dynamo_writer.py")
GENERATION = 7


@dataclass(frozen=True)
class Table:
    endpoint: str
    name: str

    @property
    def url(self) -> str:
        return dynamo.url_of(self.endpoint, self.name, max_connections=4, timeout_seconds=20)

    def send(self, request: Conditional) -> Stored | Outcome | None:
        """What is stored, if the request is not taken."""
        try:
            getattr(dynamo.client(self.endpoint), request.operation)(TableName=self.name, **request.parameters)
        except ClientError as error:
            if code_of(error) != CONDITION_FAILED:
                raise
            return Stored.of(error.response["Item"])
        return request.outcome


def made_on(endpoint: str) -> Table:
    table = Table(endpoint, f"histories-{uuid4().hex}")
    provision(table.url, session=dynamo.session())
    return table


@pytest.fixture
def table(moto_endpoint: str) -> Table:
    return made_on(moto_endpoint)


@dataclass
class Writer:
    """One writer of one key, a request at a time; what it was refused for its fence it reads anew."""

    life: "TableLife"
    key: int
    step: Step
    is_stream: bool
    following: Conditional | Outcome | None = None

    @property
    def is_done(self) -> bool:
        return isinstance(self.following, Outcome)

    def request(self) -> None:
        offer = self.life.offer(self.key, self.step)
        following = self.following or first_request(offer)
        assert isinstance(following, Conditional)
        self.life.sent.append(following)
        found = self.life.place.send(following)
        self.following = found if isinstance(found, Outcome) else next_request(offer, found)
        if self.following is Outcome.REFUSED:
            self.read_again()

    def read_again(self) -> None:
        rows = self.life.table
        if self.is_stream and rows.frontier_row(self.key) is None:
            return
        since = rows.commits if self.is_stream else self.life.states["dynamo"][0]
        self.step, self.following = rows.step(self.key, since), None

    def finish(self) -> None:
        for _ in range(20):
            if self.is_done:
                return
            self.request()
        raise AssertionError("a writer that nobody disturbs ends after a few requests")


@dataclass
class TableLife(Life):
    """A history whose warm tier is a table; several lives share it."""

    place: Table = field(default_factory=lambda: Table("", ""))
    number: int = 0
    sent: list[Conditional] = field(default_factory=list)

    def offer(self, key: int, step: Step) -> Offer:
        keys = [key_of(self.number * KEYS + key)]
        removed = removed_frame(keys * len(step.removed), step.removed) if step.removed else None
        messages = messages_of([step.version], step.fence, [step.is_deleted])
        (offer,) = offers_of(
            Place(GROUP, GENERATION), prepare_batch(GROUP, keys, messages, None, removed, NOW, NOW - NOW), 0
        )
        return offer

    def start_late(self) -> None:
        steps = self.table.steps(self.states["dynamo"])
        self.writers += [self.writer(key, step) for key, step in steps.items()]

    def writer(self, key: int, step: Step, *, is_stream: bool = False) -> Any:
        return Writer(self, key, step, is_stream)

    def stream(self) -> None:
        key = self.random.randrange(KEYS)
        row = self.table.frontier_row(key)
        if row is not None:
            step = Step(row, self.table.rows[key][row], self.table.rewinds[-1], ())
            self.writers.append(self.writer(key, step, is_stream=True))

    def come_twice(self) -> None:
        if self.sent:
            self.place.send(self.random.choice(self.sent))

    def materialize_dynamo(self) -> None:
        steps = self.table.steps(self.states["dynamo"])
        mine = [self.writer(key, step) for key, step in steps.items()]
        while waiting := [writer for writer in mine if not writer.is_done]:
            self.random.choice(waiting).request()
            if self.random.random() < 0.3:
                self.random.choice([self.go_on, self.come_twice])()
        self.states["dynamo"] = (self.table.commits, self.table.now)

    def held(self) -> list[Version | None]:
        keys = [key_of(self.number * KEYS + key) for key in range(KEYS)]
        return [served_version(row) for row in decoded([self.message(key) for key in keys]).to_dicts()]

    def message(self, key: bytes) -> bytes | None:
        asked = {
            "entity_id": {"S": key.decode().partition(":")[2]},
            "feature_group#version": {"S": Place(GROUP, GENERATION).sort_key},
        }
        found = dynamo.client(self.place.endpoint).get_item(TableName=self.place.name, Key=asked, ConsistentRead=True)
        return message_of(found.get("Item", {}))


def live(table: Table, count: int, first: int = 0) -> list[TableLife]:
    lives = [TableLife(random.Random(seed), place=table, number=seed) for seed in range(first, first + count)]
    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(life.run) for life in lives]:
            done.result()
    return lives


def test_every_key_of_a_table_ends_on_its_frontier_row(table: Table) -> None:
    lives = live(table, cases(2_000, 12), first=92)  # the first of which lift fences often
    for life in lives:
        assert life.held() == life.expected(), f"seed {life.number}"
    sent = [request.operation for life in lives for request in life.sent]
    assert set(sent) == {"put_item", "update_item"}


@pytest.mark.exam
def test_every_key_ends_on_its_frontier_row_on_dynamodb_local(dynamodb_local_endpoint: str) -> None:
    for life in live(made_on(dynamodb_local_endpoint), cases(2_000, 12), first=10_000):
        assert life.held() == life.expected(), f"seed {life.number}"


def test_histories_end_wrong_where_what_was_judged_may_have_changed(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two requests of one writer with another's in between: the second must see that the item is not what it judged."""

    def lift_over_another(*, is_checked: bool) -> Version | None:
        life = TableLife(random.Random(0), place=table, number=100 + is_checked)
        life.place.send(first_request(life.offer(0, Step((5, 5, 5), False, 0, ()))))
        late = life.offer(0, Step((3, 3, 3), False, 9, ()))
        judged = life.place.send(first_request(late))
        assert isinstance(judged, Stored)
        life.place.send(first_request(life.offer(0, Step((2, 2, 2), False, 4, ((5, 5, 5),)))))
        request = next_request(late, judged)
        assert isinstance(request, Conditional)
        if not is_checked:
            values = {":f": {"N": "9"}}
            unchecked = {"ConditionExpression": "f <= :f", "ExpressionAttributeValues": values}
            request = Conditional(request.operation, {**request.parameters, **unchecked}, request.outcome)
        found = life.place.send(request)
        if not isinstance(found, Outcome):
            following = next_request(late, found)
            assert isinstance(following, Conditional)
            life.place.send(following)
        return life.held()[0]

    assert lift_over_another(is_checked=True) == (3, 3, 3)
    assert lift_over_another(is_checked=False) == (2, 2, 2)


@pytest.fixture
def copy(table: Table) -> Iterator[tuple[DynamoTier, str]]:
    tier = DynamoTier(table.url, clock, session=dynamo.session())
    yield tier, tier.parts()[0].ensure_epoch(GROUP)
    tier.close()


def start_writer(table: Table, epoch: str, seed: int, keys: int, versions: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "POLARS_MAX_THREADS": "1"}
    arguments = [table.url, epoch, *map(str, (seed, keys, versions))]
    return subprocess.Popen(
        [sys.executable, str(WRITER), *arguments], stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    )


def finish(writer: subprocess.Popen[str]) -> list[list[int]]:
    """Counts of written, left and refused of each batch."""
    said, _ = writer.communicate(timeout=1200)
    assert writer.returncode == 0
    return [[int(part) for part in line.split()] for line in said.splitlines()]


def newest(tier: DynamoTier, keys: int) -> list[int | None]:
    replies = tier.read_many({GROUP: [key_of(n) for n in range(keys)]}, timeout_seconds=60)[GROUP]
    found: list[int | None] = decoded(replies.messages)["v"].to_list()
    return found


def test_shuffled_doubled_writers_of_several_processes_end_on_the_newest_version(
    table: Table, copy: tuple[DynamoTier, str]
) -> None:
    tier, epoch = copy
    keys, versions = cases(500, 12), cases(10, 4)
    writers = [start_writer(table, epoch, seed, keys, versions) for seed in range(cases(4, 2))]
    reports = [finish(writer) for writer in writers]
    assert all(sum(left for _, left, _ in report) > 0 for report in reports)
    assert newest(tier, keys) == [versions] * keys


@pytest.mark.exam
def test_a_writer_killed_in_the_middle_can_be_repeated(table: Table, copy: tuple[DynamoTier, str]) -> None:
    tier, epoch = copy
    for seed in range(cases(8, 2)):
        writers = [start_writer(table, epoch, 10 * seed + n, 60, 5 + seed) for n in range(4)]
        for writer in writers[:2]:
            assert writer.stdout is not None
            writer.stdout.readline()
            writer.kill()
            writer.communicate()
        for writer in writers[2:]:
            finish(writer)
        assert newest(tier, 60) == [5 + seed] * 60
