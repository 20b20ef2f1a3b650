"""Delivery of the outbox: sinks that are down, slow or refuse, several workers, workers that die, and what is repeated."""

import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from featurestore.alerts.book import KEPT, AlertBook
from featurestore.alerts.delivery import Delivery
from featurestore.alerts.notice import Notice
from featurestore.alerts.outbox import FIRST_WAIT, LEASE, LONGEST_WAIT, REFUSED_WAIT, Outbox
from featurestore.alerts.problem import Problem, Watched
from featurestore.alerts.routes import routing_from
from featurestore.alerts.settings import AlertmanagerSettings, EmailSettings, WebhookSettings
from featurestore.alerts.sinks.alertmanager import ALERTS_A_POST
from featurestore.alerts.sinks.sink import Sink, sink_of
from featurestore.errors import AlertRefused, SinkUnavailable
from tests.alert_problems import GROUPS, HOUR, MINUTE, SECOND, T0, WATCHED, ListSink, look, problem, said
from tests.contract.receivers import HttpReceiver, http_receiver, mail_server
from tests.offline_rows import SetClock
from tests.scale import cases, exam_seed
from tests.waiting import wait_for

ALL = routing_from(
    'default = ["a", "b"]\n[sinks.a]\nkind = "slack"\nurl_env = "A"\n[sinks.b]\nkind = "slack"\nurl_env = "B"', "test"
)
DOWN, NO = SinkUnavailable("No answer: refused"), AlertRefused("HTTP 400: no")


@dataclass
class Desk:
    """A book with two sinks, and a clock."""

    book: AlertBook
    clock: SetClock
    sinks: dict[str, Sink] = field(default_factory=lambda: {"a": ListSink(), "b": ListSink()})

    @property
    def outbox(self) -> Outbox:
        return Outbox(self.book.database)

    def say(self, *statuses: tuple[str, str]) -> None:
        """A look that finds groups so; the others are well."""
        self.clock.now += SECOND
        problems = [problem(name, status) for name, status in statuses]  # type: ignore[arg-type]
        self.book.reconcile(look(self.clock.now, *problems), WATCHED, ALL)

    def deliver(self, **other: Any) -> dict[str, int]:
        """A round that has all the time it wants, unless told otherwise."""
        return Delivery(self.outbox, self.sinks, self.clock, **{"budget_seconds": 120.0, **other}).deliver()

    def taken(self, sink: str) -> list[Notice]:
        one = self.sinks[sink]
        assert isinstance(one, ListSink)
        return one.taken

    def answers(self, sink: str, *answers: Exception | None) -> None:
        one = self.sinks[sink]
        assert isinstance(one, ListSink)
        one.answers += answers


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    clock = SetClock(T0)
    return Desk(AlertBook.open(f"sqlite:///{tmp_path / 'metadata.db'}", clock), clock)


def test_every_sink_gets_every_notice_once_and_in_order(desk: Desk) -> None:
    first, second, _ = GROUPS
    desk.say((first, "WARN"), (second, "BREACH"))
    desk.say((first, "BREACH"))
    assert desk.deliver() == {"a": 4, "b": 4}
    assert desk.deliver() == {}
    assert said(desk.taken("a")) == said(desk.taken("b"))
    assert said(desk.taken("a"))[2:] == [("raised", "BREACH", first), ("recovered", "BREACH", second)]
    assert desk.outbox.backlog() == []


def test_a_sink_that_is_down_for_an_hour_is_asked_ever_more_rarely_and_loses_nothing(desk: Desk) -> None:
    first = GROUPS[0]
    tries: list[datetime] = []

    class Down(ListSink):
        def send(self, notices: Sequence[Notice]) -> str:
            tries.append(desk.clock.now)
            if desk.clock.now < T0 + HOUR:
                raise DOWN
            return super().send(notices)

    desk.sinks["a"] = Down()
    for second in [*range(0, 400, 10), *range(400, 4200, 60)]:
        desk.clock.now = T0 + second * SECOND
        if second == 0:
            desk.say((first, "WARN"))
        if second == 1000:
            desk.say((first, "BREACH"))
        if second == 2020:
            desk.say()
        desk.deliver()
    told = [("opened", "WARN", first), ("raised", "BREACH", first), ("recovered", "BREACH", first)]
    assert said(desk.taken("a")) == said(desk.taken("b")) == told
    waits = [(later - earlier).total_seconds() for earlier, later in pairwise(tries)]
    assert waits[1:5] == [20, 40, 80, 160]
    assert max(waits) <= LONGEST_WAIT.total_seconds() + 60
    assert desk.outbox.standings()["a"].failures == 0


def test_what_a_sink_refuses_stays_is_shown_and_holds_up_its_own_successors_alone(desk: Desk) -> None:
    first, second, _ = GROUPS
    desk.say((first, "WARN"))
    desk.say((first, "WARN"), (second, "WARN"))
    desk.say((first, "BREACH"), (second, "WARN"))
    desk.answers("a", NO)
    desk.deliver()
    assert said(desk.taken("a")) == [("opened", "WARN", second)]
    refused, waiting = desk.outbox.backlog()
    assert (refused.sink, refused.attempts, refused.error) == ("a", 1, "HTTP 400: no")
    assert (waiting.notice.event, waiting.attempts) == ("raised", 0)
    desk.clock.now += REFUSED_WAIT - SECOND
    assert desk.deliver() == {}
    desk.clock.now += SECOND
    assert desk.deliver() == {"a": 2}
    assert said(desk.taken("a"))[1:] == [("opened", "WARN", first), ("raised", "BREACH", first)]


def test_of_a_batch_that_is_refused_whole_the_good_notices_arrive(desk: Desk) -> None:
    class Picky(ListSink):
        def batches(self, notices: Sequence[Notice]) -> list[list[Notice]]:
            return [list(notices)]

        def send(self, notices: Sequence[Notice]) -> str:
            if any(one.group == GROUPS[1] for one in notices):
                raise NO
            return super().send(notices)

    desk.sinks["a"] = Picky()
    desk.say(*((name, "WARN") for name in GROUPS))
    desk.deliver()
    assert [one.group for one in desk.taken("a")] == [GROUPS[0], GROUPS[2]]


def test_a_slow_sink_holds_up_no_other_and_no_round(desk: Desk) -> None:
    """Its time is up as soon as the other sink has taken everything."""
    is_begun, free = threading.Event(), threading.Event()

    class Slow(ListSink):
        def send(self, notices: Sequence[Notice]) -> str:
            is_begun.set()
            assert free.wait(120)
            return super().send(notices)

    class Quick(ListSink):
        def send(self, notices: Sequence[Notice]) -> str:
            assert is_begun.wait(120)
            return super().send(notices)

    desk.sinks = {"a": Quick(), "b": Slow()}
    desk.say((GROUPS[0], "WARN"), (GROUPS[1], "WARN"))
    assert desk.deliver(timer=lambda: 60.0 * len(desk.taken("a"))) == {"a": 2}
    assert desk.taken("b") == [], "the round has not waited for it"
    assert desk.deliver(budget_seconds=0.5) == {}, "who is at it keeps the sink"
    free.set()
    wait_for("the episode", lambda: len(desk.outbox.backlog()) == 1, 60)
    assert len(desk.taken("b")) == 1, "after its time is up no further batch is begun"
    wait_for("the delivery", lambda: desk.deliver() == {"b": 1}, 60)


@pytest.mark.parametrize("is_forgetful", [False, True])
def test_what_a_sink_did_not_foresee_is_shown_without_its_words_and_backed_off_from(
    desk: Desk, is_forgetful: bool
) -> None:
    sink = ListSink(repeat_every=MINUTE if is_forgetful else None)
    desk.sinks["a"] = sink
    if is_forgetful:
        desk.say((GROUPS[0], "WARN"))
        desk.deliver()
        desk.clock.now += MINUTE
    else:
        desk.say((GROUPS[0], "WARN"))
    heard = len(sink.taken)
    desk.answers("a", *[ZeroDivisionError("at https://hooks.example.org/secret")] * 2)
    desk.deliver()
    standing = desk.outbox.standings()["a"]
    assert standing.failures == 1
    assert standing.due_at == desk.clock.now + FIRST_WAIT
    assert standing.error.startswith("Unforeseen ZeroDivisionError in tests/alert_problems.py, line ")
    desk.clock.now += FIRST_WAIT
    desk.deliver()
    assert desk.outbox.standings()["a"].due_at == desk.clock.now + 2 * FIRST_WAIT
    desk.clock.now += 2 * FIRST_WAIT
    desk.deliver()
    assert (desk.outbox.standings()["a"].error, len(sink.taken)) == ("", heard + 1)


def test_a_proxy_that_python_cannot_speak_to_is_shown_and_backed_off_from(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.say((GROUPS[0], "WARN"))
    with http_receiver() as receiver:
        desk.sinks["a"] = sink_of(WebhookSettings(receiver.url), desk.clock)
        monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
        assert desk.deliver() == {"b": 1}
        standing = desk.outbox.standings()["a"]
        assert (standing.failures, standing.due_at) == (1, desk.clock.now + FIRST_WAIT)
        assert standing.error
        monkeypatch.delenv("ALL_PROXY")
        desk.clock.now += FIRST_WAIT
        assert desk.deliver() == {"a": 1}


def test_mail_is_delivered_once_by_a_server_that_answers_a_goodbye_in_its_own_way(desk: Desk) -> None:
    desk.say((GROUPS[0], "WARN"))
    with mail_server() as server:
        server.answers["QUIT"] = "421 closing"
        settings = EmailSettings("127.0.0.1", "store@example.org", ("ana@example.org",), server.port, "none")
        desk.sinks["a"] = sink_of(settings, desk.clock)
        assert desk.deliver() == {"a": 1, "b": 1}
        desk.clock.now += HOUR
        assert desk.deliver() == {}
    assert len(server.mail) == 1


def test_workers_at_once_deliver_once(desk: Desk) -> None:
    for status in ("WARN", "BREACH"):
        desk.say(*((name, status) for name in GROUPS))
    threads = [threading.Thread(target=desk.deliver) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for sink in ("a", "b"):
        assert len({one.notice_id for one in desk.taken(sink)}) == len(desk.taken(sink)) == 6


def test_what_a_worker_sent_and_died_before_it_said_so_is_sent_again_with_the_same_id(desk: Desk) -> None:
    class Killed(ListSink):
        def send(self, notices: Sequence[Notice]) -> str:
            super().send(notices)
            raise SystemExit

    sink = Killed()
    desk.sinks["a"] = sink
    desk.say((GROUPS[0], "WARN"))
    outbox = desk.outbox
    assert outbox.lease("a", "dead", desk.clock.now)
    with pytest.raises(SystemExit):
        sink.send([one.notice for one in outbox.due("a", desk.clock.now)])
    desk.sinks["a"] = ListSink(taken=sink.taken)
    assert "a" not in desk.deliver(), "its lease still runs"
    desk.clock.now += LEASE
    assert desk.deliver() == {"a": 1}
    assert len({one.notice_id for one in desk.taken("a")}) == 1
    assert len(desk.taken("a")) == 2


def test_random_failures_of_sinks_lose_nothing_double_nothing_and_keep_the_order(tmp_path: Path) -> None:
    drawn = random.Random(exam_seed())
    for case in range(cases(40, 2)):
        clock = SetClock(T0)
        desk = Desk(AlertBook.open(f"sqlite:///{tmp_path / f'{case}.db'}", clock), clock)
        for _ in range(cases(60, 25)):
            desk.say(*((name, drawn.choice(["WARN", "BREACH"])) for name in GROUPS if drawn.random() < 0.5))
            desk.answers(drawn.choice("ab"), drawn.choice([DOWN, NO, None]))
            clock.now += timedelta(seconds=drawn.choice([1, 30, 600]))
            desk.deliver()
        made = len(desk.taken("a")) + sum(one.sink == "a" for one in desk.outbox.backlog())
        for sink in ("a", "b"):
            desk.sinks[sink] = ListSink(taken=desk.taken(sink))
        clock.now += HOUR
        desk.deliver()
        for sink in ("a", "b"):
            assert len(desk.taken(sink)) == made
            for name in GROUPS:
                _assert_is_a_story([one for one in desk.taken(sink) if one.group == name])


def _assert_is_a_story(told: list[Notice]) -> None:
    """Episodes one after the other: opened, perhaps raised, over."""
    for number, one in enumerate(told):
        if one.event == "opened":
            assert number == 0 or told[number - 1].event == "recovered"
        else:
            assert told[number - 1].episode_id == one.episode_id
    assert len({one.notice_id for one in told}) == len(told)


def test_a_sink_that_forgets_is_told_again_each_minute_of_what_is_open_and_not_of_what_is_over(desk: Desk) -> None:
    forgetful = ListSink(repeat_every=MINUTE)
    desk.sinks["a"] = forgetful
    first, second, _ = GROUPS
    desk.say((first, "WARN"), (second, "WARN"))
    heard: list[list[tuple[str, str, str]]] = []
    for step in range(19):
        if step == 7:
            desk.say((first, "WARN"))
        if step == 13:
            desk.say((first, "BREACH"))
        before = len(forgetful.taken)
        desk.deliver()
        heard.append(said(forgetful.taken[before:]))
        desk.clock.now += 10 * SECOND
    opened, also, raised = ("opened", "WARN", first), ("opened", "WARN", second), ("raised", "BREACH", first)
    assert {step: told for step, told in enumerate(heard) if told} == {
        0: [opened, also, opened, also],
        6: [opened, also],
        7: [("recovered", "WARN", second)],
        12: [opened],
        13: [raised],
        18: [raised],
    }


AHEAD = 6 * HOUR


@pytest.mark.parametrize("answer", [DOWN, NO])
def test_a_clock_that_was_ahead_for_one_tick_silences_nobody_when_it_is_right_again(
    desk: Desk, answer: Exception
) -> None:
    desk.say((GROUPS[0], "WARN"))
    desk.answers("a", answer)
    desk.clock.now += AHEAD
    desk.say((GROUPS[0], "WARN"), (GROUPS[1], "WARN"))
    desk.deliver()
    desk.clock.now -= AHEAD
    desk.deliver()
    assert sorted(one.group for one in desk.taken("a")) == sorted(GROUPS[:2])
    assert desk.outbox.backlog() == []


def test_a_notice_of_a_clock_that_was_a_little_ahead_is_delivered_at_once(desk: Desk) -> None:
    desk.clock.now += 10 * MINUTE
    desk.say((GROUPS[0], "WARN"))
    desk.clock.now -= 10 * MINUTE
    assert desk.deliver() == {"a": 1, "b": 1}


def test_a_lease_of_a_clock_that_was_ahead_has_ended(desk: Desk) -> None:
    desk.say((GROUPS[0], "WARN"))
    assert desk.outbox.lease("a", "dead", desk.clock.now + AHEAD)
    assert desk.deliver() == {"a": 1, "b": 1}


@dataclass
class Pager:
    """A desk whose sink `a` is an Alertmanager: which alerts it has, by the labels that make them."""

    desk: Desk
    receiver: HttpReceiver

    def look(self, watched: Watched, *problems: Problem) -> None:
        """A look and a delivery, a minute later than what was before."""
        self.desk.clock.now += MINUTE
        self.desk.book.reconcile(look(self.desk.clock.now, *problems), WATCHED | {watched.name: watched}, ALL)
        self.desk.deliver()

    def firing(self) -> list[dict[str, str]]:
        ends = {tuple(sorted(alert["labels"].items())): alert["endsAt"] for post in self.posts() for alert in post}
        now = self.desk.clock.now
        return [dict(labels) for labels, end in ends.items() if datetime.fromisoformat(end) > now]

    def posts(self) -> list[list[dict[str, Any]]]:
        return self.receiver.documents()


@pytest.fixture
def pager(desk: Desk) -> Iterator[Pager]:
    with http_receiver() as receiver:
        desk.sinks["a"] = sink_of(AlertmanagerSettings(receiver.url), desk.clock)
        yield Pager(desk, receiver)


def test_alertmanager_has_one_alert_of_an_episode_whatever_becomes_of_its_asset_owner_and_urgency(pager: Pager) -> None:
    name = GROUPS[0]
    before, after = WATCHED[name], Watched(name, "team:others", "daily", "page")
    pager.look(before, problem(asset=f"offline/{name}"))
    pager.look(after, problem(asset="raw/orders", status="BREACH"))
    (alert,) = pager.firing()
    assert (alert["severity"], alert["asset"], alert["owner"]) == ("critical", "raw/orders", "team:others")
    pager.look(before, problem(asset="raw/orders", status="BREACH"))
    assert pager.firing() == [alert], "what was told stays as it was told"
    pager.look(replace(before, alerts="off"))
    assert pager.firing() == []


@pytest.mark.parametrize("changed", ["owner", "tier", "alerts"])
def test_alertmanager_ends_an_alert_of_what_was_declared_otherwise_meanwhile(pager: Pager, changed: str) -> None:
    before = WATCHED[GROUPS[0]]
    pager.look(before, problem(status="BREACH"))
    assert [one["urgency"] for one in pager.firing()] == ["page"]
    pager.look(replace(before, **{changed: "ticket" if changed == "alerts" else "other"}))
    assert pager.firing() == []


def test_alertmanager_has_one_alert_of_more_of_the_same(pager: Pager) -> None:
    watched = WATCHED[GROUPS[0]]
    pager.look(watched, problem(extent=1))
    pager.look(watched, problem(extent=2, asset="raw/orders"))
    assert [one["asset"] for one in pager.firing()] == ["raw/orders"]


def test_each_alertmanager_ends_what_it_was_told_itself(pager: Pager) -> None:
    """One of them was added to the routes later, when the group had another owner."""
    before, after = WATCHED[GROUPS[0]], replace(WATCHED[GROUPS[0]], owner="team:others")
    with http_receiver() as other:
        pager.desk.sinks["b"] = sink_of(AlertmanagerSettings(other.url), pager.desk.clock)
        pager.desk.book.reconcile(look(T0, problem()), WATCHED, replace(ALL, default=("b",)))
        pager.look(after, problem())
        second = Pager(pager.desk, other)
        assert [one["owner"] for one in (*pager.firing(), *second.firing())] == ["team:others", "team:kiosks"]
        pager.look(before, problem(status="BREACH"))
        assert [one["owner"] for one in (*pager.firing(), *second.firing())] == ["team:kiosks", "team:kiosks"]
        pager.look(after)
        assert pager.firing() == second.firing() == []


def test_alertmanager_is_told_again_of_what_was_told_longer_ago_than_anything_is_kept(pager: Pager) -> None:
    watched = WATCHED[GROUPS[0]]
    pager.look(watched, problem())
    pager.desk.clock.now += KEPT + MINUTE
    pager.look(watched, problem(), problem(GROUPS[1]))
    assert [one["group"] for one in pager.firing()] == list(GROUPS[:2])
    pager.look(watched, problem(GROUPS[1]))
    assert [one["group"] for one in pager.firing()] == [GROUPS[1]]


def test_alertmanager_has_what_a_clock_that_was_ahead_found_until_it_is_over(pager: Pager) -> None:
    watched = WATCHED[GROUPS[0]]
    pager.desk.clock.now += AHEAD
    pager.look(watched, problem())
    pager.desk.clock.now -= AHEAD
    pager.look(watched, problem(status="BREACH"))
    assert [one["severity"] for one in pager.firing()] == ["critical"]
    before = len(pager.posts())
    pager.look(watched, problem(status="BREACH"))
    (alerts,) = pager.posts()[before:]
    assert alerts[-1]["labels"]["severity"] == "critical", "and is told again of it as it is now"
    pager.look(watched)
    assert pager.firing() == []


def test_what_is_told_again_goes_in_posts_that_a_proxy_takes_and_one_that_is_refused_ends_no_other(
    pager: Pager,
) -> None:
    many = {f"g{n:03}": replace(WATCHED[GROUPS[0]], name=f"g{n:03}") for n in range(3 * ALERTS_A_POST)}
    clock, book = pager.desk.clock, pager.desk.book
    book.reconcile(look(clock.now, *map(problem, many), spoken=[]), many, replace(ALL, default=("a",)))
    while pager.desk.outbox.backlog():
        pager.desk.deliver()
    assert max(map(len, pager.posts())) == ALERTS_A_POST
    clock.now += 20 * MINUTE
    assert pager.firing() == []
    pager.receiver.answers += [413]
    pager.desk.deliver()
    assert len(pager.firing()) == 2 * ALERTS_A_POST
