"""The book of alerts over both databases, beside a model of its episodes: random looks of several workers, and faults in the middle."""

import random
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import event

from featurestore.alerts.book import KEPT, AlertBook
from featurestore.alerts.notice import Notice
from featurestore.alerts.outbox import LEASE, Outbox
from featurestore.alerts.problem import Key, Problem
from featurestore.alerts.routes import NOBODY
from featurestore.alerts.text import headline
from tests.alert_problems import GROUPS, MINUTE, ROUTING, SECOND, T0, WATCHED, look, problem, said
from tests.offline_rows import SetClock
from tests.scale import cases, exam_seed


@pytest.fixture
def clock() -> SetClock:
    return SetClock(T0)


@pytest.fixture
def book(url: str, clock: SetClock) -> AlertBook:
    return AlertBook.open(url, clock)


def told(book: AlertBook, sink: str = "chat") -> list[Notice]:
    """What waits for a sink, in its order."""
    return [one.notice for one in Outbox(book.database).backlog() if one.sink == sink]


def test_an_episode_is_told_when_it_opens_when_it_is_worse_and_when_it_is_over(book: AlertBook) -> None:
    steps = [
        look(T0),
        look(T0 + MINUTE, problem()),
        look(T0 + 2 * MINUTE, problem()),
        look(T0 + 3 * MINUTE, problem(status="BREACH")),
        look(T0 + 4 * MINUTE, problem(status="WARN")),
        look(T0 + 5 * MINUTE, problem(status="BREACH")),
        look(T0 + 6 * MINUTE),
        look(T0 + 7 * MINUTE),
    ]
    made = [said(book.reconcile(step, WATCHED, ROUTING)) for step in steps]
    name = GROUPS[0]
    opened, raised, recovered = ("opened", "WARN", name), ("raised", "BREACH", name), ("recovered", "BREACH", name)
    assert made == [[], [opened], [], [raised], [], [], [recovered], []]
    assert said(told(book)) == [opened, raised, recovered]
    assert said(told(book, "pager")) == [raised, recovered], (
        "a warning is a ticket; whoever heard of it hears of its end"
    )
    assert [one.notice_id.partition("-")[2] for one in told(book)] == ["1", "2", "3"]
    assert len({one.episode_id for one in told(book)}) == 1


def test_an_episode_comes_back_as_it_was(book: AlertBook) -> None:
    one = problem(text="Zürich: 'λ' is late", extent=3, status="BREACH")
    book.reconcile(look(T0 + MINUTE, one), WATCHED, ROUTING)
    (kept,) = book.open_episodes()
    assert (kept.problem, kept.watched, kept.told) == (one, WATCHED[one.group], ("chat", "pager"))
    assert (kept.opened_at, kept.changed_at, kept.notices) == (T0 + MINUTE, T0 + MINUTE, 1)


def test_what_a_look_does_not_speak_for_stays_as_it_is(book: AlertBook) -> None:
    book.reconcile(look(T0, problem(), problem(GROUPS[1])), WATCHED, ROUTING)
    others = look(T0 + MINUTE, spoken=[("freshness", GROUPS[1]), ("drift", GROUPS[0])])
    assert said(book.reconcile(others, WATCHED, ROUTING)) == [("recovered", "WARN", GROUPS[1])]


def test_a_look_that_is_older_than_the_last_change_changes_nothing(book: AlertBook, clock: SetClock) -> None:
    clock.now = T0 + 5 * MINUTE
    book.reconcile(look(T0 + 2 * MINUTE, problem()), WATCHED, ROUTING)
    assert book.reconcile(look(T0 + MINUTE), WATCHED, ROUTING) == []
    book.reconcile(look(T0 + 4 * MINUTE), WATCHED, ROUTING)
    assert book.reconcile(look(T0 + 3 * MINUTE, problem(status="BREACH")), WATCHED, ROUTING) == []
    assert book.open_episodes() == []


def test_an_episode_of_a_clock_that_was_ahead_is_raised_recovers_and_comes_again(
    book: AlertBook, clock: SetClock
) -> None:
    def at(minute: int, *problems: Problem) -> list[tuple[str, str, str]]:
        clock.now = T0 + minute * MINUTE
        return said(book.reconcile(look(clock.now, *problems), WATCHED, ROUTING))

    name, ahead = GROUPS[0], 360
    assert at(ahead, problem()) == [("opened", "WARN", name)]
    assert at(1, problem(status="BREACH")) == [("raised", "BREACH", name)]
    assert at(2) == [("recovered", "BREACH", name)]
    assert headline(told(book)[-1]) == f"Recovered: freshness of {name}, after 0.0 s"
    assert at(3, problem()) == [("opened", "WARN", name)]
    assert at(ahead + 4) == [("recovered", "WARN", name)]
    assert at(5, problem()) == [("opened", "WARN", name)]


def test_episodes_of_what_is_no_longer_declared_or_alerts_nobody_are_closed_and_say_so(book: AlertBook) -> None:
    book.reconcile(look(T0, *map(problem, GROUPS)), WATCHED, ROUTING)
    fewer = {GROUPS[0]: replace(WATCHED[GROUPS[0]], alerts="off"), GROUPS[2]: WATCHED[GROUPS[2]]}
    still = look(T0 + MINUTE, *map(problem, GROUPS))
    closed = book.reconcile(still, fewer, ROUTING)
    assert said(closed) == [("closed", "WARN", GROUPS[0]), ("closed", "WARN", GROUPS[1])]
    assert [one.reason for one in closed] == [
        f"{GROUPS[0]} is declared with alerts='off' now.",
        f"{GROUPS[1]} is no longer declared.",
    ]
    assert book.reconcile(look(T0 + 2 * MINUTE, problem(GROUPS[0]), problem(GROUPS[2])), fewer, ROUTING) == []


def test_an_episode_whose_check_is_no_longer_declared_is_closed_and_says_so(book: AlertBook) -> None:
    drifts = [problem(name, kind="drift") for name in GROUPS[:2]]
    book.reconcile(look(T0, *drifts, spoken=[one.key for one in drifts]), WATCHED, ROUTING)
    assert book.reconcile(look(T0 + MINUTE, spoken=[]), WATCHED, ROUTING) == []
    without = replace(look(T0 + 2 * MINUTE, spoken=[]), unchecked=frozenset([drifts[0].key, ("parity", GROUPS[0])]))
    (closed,) = book.reconcile(without, WATCHED, ROUTING)
    assert said([closed]) == [("closed", "WARN", GROUPS[0])]
    assert closed.reason == f"{GROUPS[0]} is declared without a check of drift now."
    assert [one.key for one in book.open_episodes()] == [drifts[1].key], "of what others look at they speak"


def test_a_sink_that_is_added_while_an_episode_goes_on_is_told_of_it_once(book: AlertBook) -> None:
    book.reconcile(look(T0, problem()), WATCHED, NOBODY)
    assert (told(book), len(book.open_episodes())) == ([], 1)
    for minute in (1, 2):
        book.reconcile(look(T0 + minute * MINUTE, problem()), WATCHED, ROUTING)
    assert said(told(book)) == [("opened", "WARN", GROUPS[0])]
    book.reconcile(look(T0 + 3 * MINUTE), WATCHED, NOBODY)
    assert said(told(book))[1:] == [("recovered", "WARN", GROUPS[0])], (
        "without routes, whoever heard of it hears of its end"
    )


def test_more_of_the_same_is_told_when_it_has_doubled(book: AlertBook) -> None:
    made = [
        said(book.reconcile(look(T0 + n * MINUTE, problem(extent=n)), WATCHED, ROUTING)) for n in (1, 2, 3, 4, 7, 8)
    ]
    assert [len(notices) for notices in made] == [1, 1, 0, 1, 0, 1]


def test_old_episodes_and_what_was_delivered_of_them_are_forgotten(book: AlertBook, clock: SetClock) -> None:
    book.reconcile(look(T0, problem()), WATCHED, ROUTING)
    book.reconcile(look(T0 + MINUTE), WATCHED, ROUTING)
    outbox = Outbox(book.database)
    outbox.lease("chat", "w", T0)
    outbox.delivered("chat", [one.number for one in outbox.backlog()], T0 + MINUTE)
    clock.now = T0 + KEPT + 2 * MINUTE
    assert len(book.episodes(T0)) == 1
    book.reconcile(look(clock.now, problem(GROUPS[1])), WATCHED, ROUTING)
    assert [one.episode.problem.group for one in book.episodes(T0)] == [GROUPS[1]]


def test_a_sink_has_one_worker_until_it_leaves_or_its_lease_ends(book: AlertBook) -> None:
    outbox = Outbox(book.database)
    assert outbox.lease("chat", "a", T0)
    assert outbox.lease("pager", "b", T0)
    assert not outbox.lease("chat", "b", T0 + LEASE - SECOND)
    assert outbox.lease("chat", "a", T0 + SECOND), "who has it extends it"
    assert not outbox.lease("chat", "b", T0 + LEASE)
    assert outbox.lease("chat", "b", T0 + LEASE + SECOND)
    outbox.release("chat", "a")
    assert not outbox.lease("chat", "a", T0 + LEASE + SECOND), "who has lost it leaves it to whoever has it"
    outbox.release("chat", "b")
    assert outbox.lease("chat", "a", T0 + LEASE + SECOND)


Told = tuple[str, str, Key]


class Cut(Exception):
    """What a fault in the database raises."""


@dataclass
class Model:
    """Episodes as they are to be, told in the plainest way."""

    open: dict[Key, tuple[str, int]] = field(default_factory=dict)
    made: list[Told] = field(default_factory=list)

    def look(self, problems: list[Problem], spoken: list[Key]) -> None:
        found = {one.key: one for one in problems}
        for key, one in found.items():
            if key not in self.open:
                self.made.append(("opened", one.status, key))
            elif _is_worse(one, *self.open[key]):
                self.made.append(("raised", one.status, key))
            else:
                continue
            self.open[key] = (one.status, one.extent)
        ends = [key for key in self.open if key in spoken and key not in found]
        self.made += [("recovered", self.open.pop(key)[0], key) for key in ends]


def _is_worse(one: Problem, status: str, extent: int) -> bool:
    if one.status != status:
        return one.status == "BREACH"
    return extent > 0 and one.extent >= 2 * extent


def cut_after(book: AlertBook, statements: int) -> Any:
    """Let the database fail after so many writes of a transaction."""
    left = [statements]

    def fail(_connection: Any, _cursor: Any, statement: str, *_others: Any) -> None:
        if statement.startswith(("INSERT", "UPDATE")):
            left[0] -= 1
            if left[0] < 0:
                raise Cut

    event.listen(book.database._engine, "before_cursor_execute", fail)
    return lambda: event.remove(book.database._engine, "before_cursor_execute", fail)


def random_look(drawn: random.Random, at: datetime) -> tuple[list[Problem], list[Key]]:
    """A look of one worker of three: each speaks for some groups, and sees some of them late."""
    spoken: list[Key] = [("freshness", name) for name in GROUPS if drawn.random() < 0.8]
    spoken += [("quarantine", name) for name in GROUPS if drawn.random() < 0.5]
    problems = [
        problem(name, drawn.choice(["WARN", "BREACH"]), kind, extent=drawn.choice([0, 1, 2, 5]))
        for kind, name in spoken
        if drawn.random() < 0.4
    ]
    return problems, spoken


def test_random_looks_of_several_workers_with_faults_tell_exactly_what_the_model_tells(url: str) -> None:
    drawn = random.Random(exam_seed())
    clock = SetClock(T0)
    for _ in range(cases(60, 1)):
        books, model = [AlertBook.open(url, clock) for _ in range(3)], Model()
        before = len(told(books[0]))
        for step in range(cases(40, 20)):
            clock.now += SECOND
            problems, spoken = random_look(drawn, clock.now)
            worker, findings = drawn.choice(books), look(clock.now, *problems, spoken=spoken)
            if drawn.random() < 0.4:
                mend = cut_after(worker, drawn.randrange(4))
                try:
                    worker.reconcile(findings, WATCHED, ROUTING)
                except Cut:
                    pass
                finally:
                    mend()
                worker = drawn.choice(books)
            worker.reconcile(findings, WATCHED, ROUTING)
            model.look(problems, spoken)
            assert {one.key for one in worker.open_episodes()} == set(model.open), step
        heard: list[Told] = [(one.event, one.status, (one.kind, one.group)) for one in told(books[0])[before:]]
        assert by_key(heard) == by_key(model.made)
        clock.now += SECOND
        books[0].reconcile(look(clock.now, spoken=list(model.open)), WATCHED, ROUTING)
        rows = Outbox(books[0].database)
        rows.lease("chat", "w", clock.now)
        rows.delivered("chat", [one.number for one in rows.backlog()], clock.now)


def by_key(told: list[Told]) -> dict[Key, list[tuple[str, str]]]:
    """What was told of each kind and group, in its order."""
    return {key: [(event, status) for event, status, other in told if other == key] for _, _, key in told}
