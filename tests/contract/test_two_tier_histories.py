"""Random histories of a table of several keys and its copies in two tiers: the Redis script, and DynamoDB's conditions.

Each tier is moved by steps of its own from what it records. Writers are held up between any two requests, come late, come
twice, and stream single rows beside the steps. In the end every key of both tiers is its frontier row of the table.

The Redis tier is a real server. DynamoDB is a model of what one conditional request can do: a put under the design's
condition, or a lift of the fence under exactly its complement. A lift that looks only at the fence ends wrong, which a test
here shows: so each writer tries the one and the other until either is taken.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import redis

from featurestore.online.redis.tier import RedisOnlineStore
from tests.contract.online_rows import GROUP, Version, clock, decoded, key_of, moment
from tests.contract.test_online_writers import LOWEST, Step, deliver
from tests.scale import cases

KEYS = 3


@dataclass(frozen=True)
class Item:
    """An item of DynamoDB: the version that it holds, and its fence."""

    version: Version
    is_deleted: bool
    fence: int


@dataclass
class Table:
    """Rows of several keys, the commits that changed them, and the rewinds among these."""

    random: random.Random
    rows: dict[int, dict[Version, bool]] = field(default_factory=lambda: {key: {} for key in range(KEYS)})
    gone: list[tuple[int, int, Version]] = field(default_factory=list)
    came: list[tuple[int, int]] = field(default_factory=list)
    states: list[dict[int, dict[Version, bool]]] = field(default_factory=list)
    rewinds: list[int] = field(default_factory=lambda: [0])
    commits: int = 0
    now: int = 0

    def commit(self) -> None:
        """A window of some keys computed again, or rows no longer emitted."""
        after = {key: dict(rows) for key, rows in self.rows.items()}
        for key in self.random.sample(range(KEYS), self.random.randint(1, KEYS)):
            after[key] = {v: dead for v, dead in after[key].items() if self.random.random() > 0.3}
            for _ in range(self.random.randint(0, 2)):
                event, wait = self.random.randint(0, 5), self.random.randint(0, 3)
                version = (event, max(event, self.now) + wait, 10 * (self.commits + 1) + len(after[key]))
                after[key][version] = self.random.random() < 0.2
        self.become(after)

    def roll_back(self) -> None:
        """Some keys return to what they were, as new content: a row that is back has another `created_at`."""
        if not self.states:
            return
        earlier, after = self.random.choice(self.states), {key: dict(rows) for key, rows in self.rows.items()}
        for key in self.random.sample(range(KEYS), self.random.randint(1, KEYS)):
            stamp = 10 * (self.commits + 1)
            after[key] = {
                version if version in self.rows[key] else (version[0], version[1], stamp): is_deleted
                for version, is_deleted in earlier[key].items()
            }
        self.become(after)

    def become(self, after: dict[int, dict[Version, bool]]) -> None:
        self.states.append(self.rows)
        before, self.rows = self.rows, after
        self.commits += 1
        lost = [(key, v) for key in range(KEYS) for v in before[key] if v not in after[key]]
        self.gone += [(self.commits, key, version) for key, version in lost]
        self.came += [(self.commits, key) for key in range(KEYS) if after[key].keys() - before[key].keys()]
        if any(self.is_rewound(key, version) for key, version in lost):
            self.rewinds.append(self.commits)

    def is_rewound(self, key: int, lost: Version) -> bool:
        """Whether no higher row, servable as soon, follows a removed one."""
        return not any(v > lost and v[1] <= max(lost[1], self.now) for v in self.rows[key])

    def wait(self) -> None:
        self.now += self.random.randint(1, 3)

    def frontier_row(self, key: int) -> Version | None:
        return max((version for version in self.rows[key] if version[1] <= self.now), default=None)

    def steps(self, state: tuple[int, int]) -> dict[int, Step]:
        """What a step from a tier's state to now offers each key that it takes."""
        since, as_of = state
        taken = {key for commit, key, _ in self.gone if commit > since} | {
            k for commit, k in self.came if commit > since
        }
        taken |= {k for k, rows in self.rows.items() if any(as_of < v[1] <= self.now for v in rows)}
        return {key: self.step(key, since) for key in sorted(taken)}

    def step(self, key: int, since: int) -> Step:
        row = self.frontier_row(key)
        removed = tuple(version for commit, k, version in self.gone if k == key and commit > since)
        return Step(row or LOWEST, row is None or self.rows[key][row], self.rewinds[-1], removed)


class Conditions:
    """DynamoDB as the design uses it: one conditional request at a time, on one item."""

    def __init__(self) -> None:
        self.items: dict[int, Item] = {}

    def put(self, key: int, step: Step) -> bool:
        """`attribute_not_exists(v) OR (fence <= :f AND (v < :v OR v IN (:removed)))`; streams have nothing removed."""
        item = self.items.get(key)
        if item is None or (item.fence <= step.fence and self.gives_way(item, step)):
            self.items[key] = Item(step.version, step.is_deleted, step.fence)
            return True
        return False

    def lift(self, key: int, step: Step) -> bool:
        """`fence <= :f AND NOT (v < :v OR v IN (:removed))`: the value stays, and the fence is the writer's."""
        item = self.items.get(key)
        if item is None or item.fence > step.fence or self.gives_way(item, step):
            return False
        self.items[key] = Item(item.version, item.is_deleted, step.fence)
        return True

    def gives_way(self, item: Item, step: Step) -> bool:
        return item.version < step.version or item.version in step.removed

    def is_fenced_off(self, key: int, step: Step) -> bool:
        return key in self.items and self.items[key].fence > step.fence


class LiftByFenceAlone(Conditions):
    """Wrong: what came between a refused put and the lift is kept, whatever it is."""

    def lift(self, key: int, step: Step) -> bool:
        item = self.items.get(key)
        if item is None or item.fence > step.fence:
            return False
        self.items[key] = Item(item.version, item.is_deleted, step.fence)
        return True


class WithoutLift(Conditions):
    """Wrong: a key whose value stays keeps its old fence, below which a removed version comes back."""

    def lift(self, key: int, step: Step) -> bool:
        return key in self.items and not self.is_fenced_off(key, step) and not self.gives_way(self.items[key], step)


class WithoutFence(Conditions):
    """Wrong: newest wins, and nothing else."""

    def put(self, key: int, step: Step) -> bool:
        item = self.items.get(key)
        if item is None or self.gives_way(item, step):
            self.items[key] = Item(step.version, step.is_deleted, step.fence)
            return True
        return False


class Writer:
    """One writer of one key to DynamoDB, a request at a time; what it was refused for its fence it reads anew."""

    def __init__(self, life: "Life", key: int, step: Step, *, is_stream: bool) -> None:
        self.life, self.key, self.step, self.is_stream = life, key, step, is_stream
        self.is_next_lift = self.is_done = False

    def request(self) -> None:
        tier = self.life.dynamo
        self.life.requests.append((self.is_next_lift, self.key, self.step))
        is_taken = (tier.lift if self.is_next_lift else tier.put)(self.key, self.step)
        if is_taken:
            self.is_done = True
        elif tier.is_fenced_off(self.key, self.step):
            self.read_again()
        elif self.is_stream:
            self.is_done = True
        else:
            self.is_next_lift = not self.is_next_lift

    def read_again(self) -> None:
        table = self.life.table
        if self.is_stream and table.frontier_row(self.key) is None:
            self.is_done = True
            return
        since = table.commits if self.is_stream else self.life.states["dynamo"][0]
        self.step, self.is_next_lift = table.step(self.key, since), False

    def finish(self) -> None:
        for _ in range(20):
            if self.is_done:
                return
            self.request()
        raise AssertionError("a writer that nobody disturbs ends after a few requests")


@dataclass
class Life:
    """One table, its two copies, and everyone who writes to them."""

    random: random.Random
    dynamo: Conditions = field(default_factory=Conditions)
    states: dict[str, tuple[int, int]] = field(default_factory=lambda: {"redis": (0, -1), "dynamo": (0, -1)})
    redis_steps: list[tuple[int, Step]] = field(default_factory=list)
    redis_delivered: list[tuple[int, Step]] = field(default_factory=list)
    writers: list[Writer] = field(default_factory=list)
    requests: list[tuple[bool, int, Step]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.table = Table(self.random)

    def run(self) -> None:
        acts = [
            self.table.commit,
            self.table.commit,
            self.table.roll_back,
            self.table.wait,
            self.materialize_redis,
            self.materialize_dynamo,
            self.start_late,
            self.stream,
            self.go_on,
            self.go_on,
            self.come_twice,
        ]
        for _ in range(self.random.randint(6, 30)):
            self.random.choice(acts)()
        self.materialize_redis()
        self.materialize_dynamo()
        for _ in range(4):
            self.go_on()
            self.come_twice()
        for writer in self.writers:
            writer.finish()

    def start_late(self) -> None:
        """Someone plans a step of either tier, and is held up."""
        self.redis_steps += self.table.steps(self.states["redis"]).items()
        steps = self.table.steps(self.states["dynamo"])
        self.writers += [Writer(self, key, step, is_stream=False) for key, step in steps.items()]

    def stream(self) -> None:
        """A writer has seen a key's row and brings it, some time, to both tiers."""
        key = self.random.randrange(KEYS)
        row = self.table.frontier_row(key)
        if row is not None:
            step = Step(row, self.table.rows[key][row], self.table.rewinds[-1], ())
            self.redis_steps.append((key, step))
            self.writers.append(Writer(self, key, step, is_stream=True))

    def go_on(self) -> None:
        waiting = [writer for writer in self.writers if not writer.is_done]
        if waiting:
            self.random.choice(waiting).request()
        if self.redis_steps:
            self.redis_delivered.append(self.random.choice(self.redis_steps))

    def come_twice(self) -> None:
        """The network brings a request once more."""
        if self.requests:
            is_lift, key, step = self.random.choice(self.requests)
            (self.dynamo.lift if is_lift else self.dynamo.put)(key, step)
        if self.redis_delivered:
            self.redis_delivered.append(self.random.choice(self.redis_delivered))

    def materialize_redis(self) -> None:
        steps = list(self.table.steps(self.states["redis"]).items())
        self.redis_steps += steps
        self.redis_delivered += self.random.sample(steps, len(steps))
        self.states["redis"] = (self.table.commits, self.table.now)

    def materialize_dynamo(self) -> None:
        """A whole step, between whose requests others go on."""
        steps = self.table.steps(self.states["dynamo"])
        mine = [Writer(self, key, step, is_stream=False) for key, step in steps.items()]
        while waiting := [writer for writer in mine if not writer.is_done]:
            self.random.choice(waiting).request()
            if self.random.random() < 0.3:
                self.random.choice([self.go_on, self.come_twice])()
        self.states["dynamo"] = (self.table.commits, self.table.now)

    def expected(self) -> list[Version | None]:
        rows = [self.table.frontier_row(key) for key in range(KEYS)]
        return [None if row is None or self.table.rows[key][row] else row for key, row in enumerate(rows)]

    def in_dynamo(self) -> list[Version | None]:
        items = [self.dynamo.items.get(key) for key in range(KEYS)]
        return [None if item is None or item.is_deleted else item.version for item in items]


@pytest.fixture
def store(valkey_url: str) -> Iterator[RedisOnlineStore]:
    client = redis.Redis.from_url(valkey_url)
    client.flushall()
    made = RedisOnlineStore(client, clock)
    yield made
    made.close()


def lives(count: int, rule: type[Conditions] = Conditions, first: int = 0) -> list[Life]:
    made = [Life(random.Random(seed), rule()) for seed in range(first, first + count)]
    for life in made:
        life.run()
    return made


def test_every_key_of_both_tiers_ends_on_its_frontier_row(store: RedisOnlineStore) -> None:
    found = lives(cases(40_000, 1_000))
    for seed, life in enumerate(found):
        assert life.in_dynamo() == life.expected(), f"seed {seed}"
    assert in_redis(store, found) == [life.expected() for life in found]


def in_redis(store: RedisOnlineStore, found: list[Life]) -> list[list[Version | None]]:
    """What the server holds after everything that was delivered to it, in each life's order."""
    epoch = store.ensure_epoch()
    for turn in range(max(len(life.redis_delivered) for life in found)):
        due = [(n, life.redis_delivered[turn]) for n, life in enumerate(found) if turn < len(life.redis_delivered)]
        deliver(store, epoch, [(n * KEYS + key, step) for n, (key, step) in due])
    rows = decoded(store.read(GROUP, [key_of(number) for number in range(len(found) * KEYS)]).messages).to_dicts()
    served = [served_version(row) for row in rows]
    return [served[start : start + KEYS] for start in range(0, len(served), KEYS)]


def served_version(row: dict[str, object]) -> Version | None:
    if not row["found"] or row["is_deleted"]:
        return None
    numbers = [(row[name] - moment(0)).total_seconds() for name in ("event_time", "knowledge_time", "created_at")]  # type: ignore[operator]
    return (int(numbers[0]), int(numbers[1]), int(numbers[2]))


@pytest.mark.parametrize(("rule", "first"), [(LiftByFenceAlone, 21_500), (WithoutLift, 0), (WithoutFence, 0)])
def test_histories_end_wrong_under_a_weaker_rule(rule: type[Conditions], first: int) -> None:
    """From a seed after which the rarest of them shows soon: under the first, one history in 1,300 ends wrong."""
    found = lives(500, rule, first)
    assert any(life.in_dynamo() != life.expected() for life in found)


def test_the_histories_have_rewinds_refusals_and_rows_that_nobody_may_serve_yet() -> None:
    found = lives(300)
    assert sum(len(life.table.rewinds) > 2 for life in found) > 100
    assert sum(any(v[1] > life.table.now for rows in life.table.rows.values() for v in rows) for life in found) > 50
    assert sum(any(not is_lift for is_lift, _, _ in life.requests) for life in found) > 200
