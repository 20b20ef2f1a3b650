"""What a reader makes of a group's published freshness: its clock against the record, the modes, and what each gives of old values."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from featurestore.errors import InvalidInput, NotFresh
from featurestore.freshness.facts import GroupFacts, OnlineFacts
from featurestore.freshness.judgement import judge
from featurestore.freshness.on_read import UNSEEN, Bounds, judge_read
from featurestore.freshness.publishing import published_of
from featurestore.freshness.read_state import STATES, Freshness, GroupState
from featurestore.online.keys import entity_id
from featurestore.online.message.codec import MessageLayout, WireField, encode
from featurestore.online.published import KnownFreshness, NowAndThen, Published, newer, read_published
from featurestore.online.reading.answer import FEW_ROWS
from featurestore.online.reading.plan import read_plan
from featurestore.online.reading.retrieval import OnlineFeatures, read_features
from featurestore.online.tier import Replies
from featurestore.registry.snapshot import RegisteredGroup, RegistrySnapshot
from tests.messages import NOW, frame_of, google_value, same
from tests.offline_rows import group_of
from tests.scale import cases
from tests.unit.test_online_answers import MICROSECOND, SETTINGS, World, google_of, layout_of, value_in, worlds
from tests.unit.test_online_answers import group_of as online_group

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
SECOND = timedelta(seconds=1)
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def registered(slo: timedelta | None = None, *, arrival: timedelta | None = None, **more: Any) -> RegisteredGroup:
    """An hourly group; one with an arrival is pushed."""
    kind = {"kind": "pushed", "cadence": "pushed"} if arrival is not None else {"cadence": "hourly"}
    given = {"freshness_us": slo, "arrival_us": arrival}
    spans = {name: None if span is None else span // MICROSECOND for name, span in given.items()}
    return replace(group_of(), **{"name": "spend", "start": AT.isoformat(), **kind, **spans, **more})


def state_of(group: RegisteredGroup, published: Published | None, now: datetime = AT) -> GroupState:
    return judge_read(Bounds.of(group), published, now)


def looked(**more: Any) -> Published:
    """A look that found all well."""
    return Published(**{"looked_at": AT, "status": "OK", "last_materialized_at": AT, "newest_event": AT, **more})


# the state of a group


def test_a_group_without_slo_has_no_state_and_one_of_which_nothing_was_published_is_unknown() -> None:
    assert state_of(registered(), None).state == "NONE"
    assert state_of(registered(), looked()).state == "NONE"
    unknown = state_of(registered(HOUR), None)
    assert (unknown.state, unknown.cause, unknown.lag, unknown.slo) == ("UNKNOWN", "unpublished", None, HOUR)
    assert state_of(registered(arrival=MINUTE), None).state == "UNKNOWN"


def test_what_a_look_found_amiss_stands_whatever_the_group_declares() -> None:
    silent = looked(status="BREACH", cause="source", since=AT - DAY)
    found = state_of(registered(), silent)
    assert (found.state, found.cause, found.since) == ("BREACH", "source", AT - DAY)
    assert state_of(registered(HOUR), looked(status="NEVER", last_materialized_at=None)).state == "NEVER"
    assert state_of(registered(HOUR), looked(status="a word of a later version")).state == "UNKNOWN"


def test_when_nobody_looks_any_more_the_state_turns_by_itself_to_the_microsecond() -> None:
    group = registered(2 * HOUR, refresh_us=HOUR // MICROSECOND)
    warning = (HOUR + 2 * HOUR) / 2
    for after, state, since in [
        (warning - MICROSECOND, "OK", None),
        (warning, "WARN", AT + warning),
        (2 * HOUR - MICROSECOND, "WARN", AT + warning),
        (2 * HOUR, "BREACH", AT + 2 * HOUR),
        (900 * DAY, "BREACH", AT + 2 * HOUR),
    ]:
        found = state_of(group, looked(), AT + after)
        assert (found.state, found.since, found.lag) == (state, since, after), after
    assert state_of(group, looked(), AT - DAY).state == "OK", "a clock that went back"
    assert state_of(group, looked(), AT - DAY).lag == timedelta(0)


def test_a_copy_that_was_behind_at_the_last_look_is_taken_to_stay_so() -> None:
    behind = looked(last_materialized_at=AT + DAY, behind_since=AT)
    group = registered(2 * HOUR)
    assert state_of(group, behind, AT + HOUR - MICROSECOND).state == "OK"
    assert [state_of(group, behind, AT + hours * HOUR).state for hours in (1, 2)] == ["WARN", "BREACH"]
    assert state_of(group, behind, AT + 2 * HOUR).cause == "online"


def test_a_pushed_group_with_an_slo_of_a_second_is_well_between_two_looks_and_not_when_nobody_looks() -> None:
    group = registered(SECOND, arrival=SECOND)
    found = looked(last_materialized_at=AT - SECOND / 2)
    assert state_of(group, found, AT + UNSEEN - MICROSECOND).state == "OK"
    assert state_of(group, found, AT + UNSEEN + SECOND / 4).state == "WARN"
    assert state_of(group, found, AT + UNSEEN + SECOND / 2).state == "BREACH"


def test_a_group_that_is_judged_by_arrival_alone_does_not_grow_old_but_unknown() -> None:
    for arrival, patience in ((SECOND, UNSEEN), (5 * MINUTE, 5 * MINUTE)):
        group = registered(arrival=arrival)
        found = looked(last_materialized_at=AT - DAY, newest_event=AT - DAY - SECOND / 2)
        assert state_of(group, found, AT + patience - MICROSECOND).state == "OK"
        late = state_of(group, found, AT + patience)
        assert (late.state, late.cause, late.since) == ("UNKNOWN", "unwatched", AT + patience)
        assert (late.lag, late.slo) == (SECOND / 2, arrival), "how old its rows were when they came"


INSTANTS = st.integers(-3 * 86_400_000_000, 3 * 86_400_000_000).map(lambda us: AT + us * MICROSECOND)
HALF_AN_HOUR = 30 * MINUTE
SLOS = st.none() | st.sampled_from([SECOND, 30 * SECOND, 2 * MINUTE, HOUR, 2 * HOUR, DAY])


@settings(max_examples=cases(20_000, 300), deadline=None)
@given(
    slo=SLOS,
    arrival=SLOS,
    status=st.sampled_from(["OK", "WARN", "BREACH", "NEVER"]),
    times=st.tuples(INSTANTS, st.none() | INSTANTS, st.none() | INSTANTS, st.none() | INSTANTS),
    exact=st.sampled_from(["", "slo", "warning", "behind", "half behind", "unseen", "arrival"]),
    nudge=st.integers(-1, 1),
    now=INSTANTS,
)
@example(slo=SECOND, arrival=None, status="OK", times=(AT, AT, None, None), exact="slo", nudge=0, now=AT)
@example(slo=HOUR, arrival=None, status="OK", times=(AT, AT, None, None), exact="slo", nudge=0, now=AT)
def test_the_state_is_what_the_rules_give(
    slo: timedelta | None,
    arrival: timedelta | None,
    status: Any,
    times: tuple[Any, ...],
    exact: str,
    nudge: int,
    now: datetime,
) -> None:
    looked_at, last, newest, behind = times
    last = None if status == "NEVER" else last
    group = registered(slo, arrival=arrival)
    warning = Bounds.of(group).warning
    edges = {
        "slo": (last, slo),
        "warning": (last, warning),
        "behind": (behind, slo or max(HALF_AN_HOUR, arrival or HALF_AN_HOUR)),
        "half behind": (behind, (slo or max(HALF_AN_HOUR, arrival or HALF_AN_HOUR)) / 2),
        "unseen": (looked_at, UNSEEN),
        "arrival": (looked_at, arrival),
    }
    start, span = edges.get(exact, (None, None))
    if start is not None and span is not None:
        now = start + span + nudge * MICROSECOND
    found = state_of(group, Published(looked_at, status, last, newest, behind), now)
    assert found.state == expected_state(group, warning, Published(looked_at, status, last, newest, behind), now)
    assert found.lag is None or found.lag >= timedelta(0)


def expected_state(group: RegisteredGroup, warning: timedelta, published: Published, now: datetime) -> str:
    """The rules in whole microseconds, one after the other."""

    def us(instant: datetime) -> int:
        return (instant - AT) // MICROSECOND

    slo, arrival = group.freshness_us, group.arrival_us
    has_bound = slo is not None or arrival is not None
    told = ["NONE" if published.status == "OK" and not has_bound else published.status]
    blind = us(now) - us(published.looked_at)
    forgiven = min(max(blind, 0), 90_000_000) if group.kind == "pushed" else 0
    unserved = slo or max(1_800_000_000, arrival or 0)
    limits = [(published.behind_since, unserved / 2, unserved)]
    if slo is not None:
        limits.append((published.last_materialized_at, warning // MICROSECOND, slo))
    elif arrival is not None:
        told += ["UNKNOWN"] if blind >= max(90_000_000, arrival) else []
    for start, warn, limit in limits:
        if start is not None:
            lag = us(now) - forgiven - us(start)
            told += ["BREACH"] if lag >= limit else ["WARN"] if lag >= warn else []
    return max(told, key=STATES.index)


@settings(max_examples=cases(5_000, 100), deadline=None)
@given(
    st.sampled_from([HOUR, 2 * HOUR, DAY]),
    INSTANTS,
    st.none() | INSTANTS,
    INSTANTS,
    st.integers(0, 2 * 86_400_000_000).map(lambda us: us * MICROSECOND),
)
def test_without_anything_new_the_reader_says_what_another_look_would(
    slo: timedelta, materialized_at: datetime, behind_since: datetime | None, looked_at: datetime, later: timedelta
) -> None:
    group, online = registered(slo), OnlineFacts(behind_since=behind_since)
    facts = GroupFacts(materialized_at=materialized_at, online=online)
    record = published_of(judge(group, [], facts, looked_at))
    now = looked_at + later
    found, again = state_of(group, record, now), judge(group, [], facts, now)
    assert (found.state, found.lag) == (again.status, again.materialization_lag)
    if again.causes and found.state != record.status:
        assert found.since in [cause.since for cause in again.causes if cause.status == again.status]


# what parts keep of it, and what a process knows


@given(
    st.builds(
        Published,
        looked_at=INSTANTS,
        status=st.sampled_from(["OK", "WARN"]),
        last_materialized_at=st.none() | INSTANTS,
        newest_event=st.none() | INSTANTS,
        behind_since=st.none() | INSTANTS,
        since=st.none() | INSTANTS,
        cause=st.sampled_from(["", "late", "source"]),
    )
)
@settings(max_examples=cases(1_000, 50), deadline=None)
def test_a_record_reads_as_it_was_written(published: Published) -> None:
    assert read_published(published.record()) == read_published(published.record().encode()) == published


@pytest.mark.parametrize(
    "junk", [None, 1, b"", b"{", b"[]", b"\xff", b"{}", b'{"looked_at":"x","status":"","cause":""}']
)
def test_what_is_no_record_says_nothing(junk: object) -> None:
    assert read_published(junk) is None


def test_of_two_tiers_that_disagree_the_newest_look_counts() -> None:
    old, new = looked(looked_at=AT - SECOND, status="BREACH"), looked()
    assert newer(old, new) is newer(new, old) is newer(None, new) is newer(new, None) is new
    known = KnownFreshness()
    for one in (old, new, old):
        known.learn("spend", one)
    assert (known("spend"), known("other")) == (new, None)


def test_what_was_answered_is_not_asked_for_again_within_a_second() -> None:
    clock = [0.0]
    turns = NowAndThen(lambda: clock[0])
    assert turns.due(["a", "b"]) == turns.due(["a", "b"]) == ["a", "b"], "until somebody has an answer"
    turns.answered(["a"])
    assert turns.due(["a", "b"]) == ["b"]
    clock[0] = 1.0
    assert turns.due(["a", "b"]) == ["a", "b"]


# answers


def answer_of_states(*states: Any) -> Freshness:
    return Freshness(AT, [GroupState(f"g{i}", state) for i, state in enumerate(states)])


@pytest.mark.parametrize("state", STATES)
def test_a_strict_read_takes_no_group_in_breach_and_none_that_nobody_knows(state: Any) -> None:
    freshness = answer_of_states("OK", state)
    assert freshness.is_degraded is (state == "BREACH")
    assert freshness.state == max("OK", state, key=STATES.index)
    if state in ("NONE", "OK", "WARN"):
        freshness.require()
        return
    with pytest.raises(NotFresh, match="g1") as refused:
        freshness.require()
    assert [one["group"] for one in refused.value.groups] == ["g1"]


def test_an_answer_s_freshness_survives_its_document() -> None:
    full = GroupState("g", "BREACH", 2 * HOUR + MICROSECOND, HOUR, AT - HOUR, "online", AT - DAY, AT - DAY, AT)
    freshness = Freshness(AT, (full, GroupState("h", "NONE")))
    assert Freshness.of_document(freshness.document()) == freshness
    assert freshness.worst == full


def served(group: RegisteredGroup, messages: Sequence[bytes], now: datetime, **more: Any) -> OnlineFeatures:
    stored = {b"g0:%d" % number: message for number, message in enumerate(messages)}
    world = World(RegistrySnapshot({"g0": group}, {}), stored, set(), set(), [], now)
    return read_features(world.plan, {"k0": list(range(len(messages)))}, world.read_many, lambda: now, **more)


@pytest.mark.parametrize("count", [1, FEW_ROWS, FEW_ROWS + 1])
def test_an_answer_carries_the_states_of_its_groups_and_the_ages_of_its_values(count: int) -> None:
    layout = MessageLayout((WireField(32, "f0", pl.Int64()),), "g0")
    group = online_group("g0", layout, {"k0": "int64"}, max_age_us=10)
    group = replace(group, freshness_us=3_600_000_000)
    row: dict[str, Any] = {**dict.fromkeys(("event_time", "knowledge_time", "created_at"), NOW), "is_deleted": False}
    frame = frame_of(layout, [{**row, "schema_number": 3, "f0": number} for number in range(count)])
    messages = encode(layout, frame, schema_number=3, fence=0)
    known = {"g0": Published(NOW, "OK", NOW, NOW)}
    now = NOW + 11 * MICROSECOND
    answer = served(group, messages, now, published=known.get)
    known["g0"] = Published(NOW, "BREACH", NOW, NOW)
    (state,) = answer.freshness.groups
    assert (state.state, state.lag, answer.freshness.at, answer.is_degraded) == ("OK", 11 * MICROSECOND, now, False)
    assert answer.ages.to_dict(as_series=False) == {"g0__f0": [11e-6] * count}
    assert answer.frame["g0__f0"].to_list() == [None] * count
    old = served(group, messages, now, published=known.get, freshness="stale_ok")
    assert old.is_degraded
    assert old.frame["g0__f0"].to_list() == old.feature_columns()[0].values == list(range(count))
    assert set(old.statuses["g0__f0"]) == {"OUTSIDE_MAX_AGE"}
    with pytest.raises(NotFresh, match="g0 is BREACH"):
        served(group, messages, now, published=known.get, freshness="strict")
    with pytest.raises(InvalidInput, match="'strict', 'degrade', 'stale_ok'"):
        served(group, messages, now, freshness="fresh")


@SETTINGS
@given(world=worlds())
def test_stale_ok_gives_what_degrade_gives_and_beyond_max_age_what_is_stored(world: World) -> None:
    plan = read_plan(world.registry, world.references, True)
    old = read_features(plan, world.rows, world.read_many, lambda: world.now, freshness="stale_ok")
    usual = read_features(plan, world.rows, world.read_many, lambda: world.now)
    for one, other in zip(old.feature_columns(), usual.feature_columns(), strict=True):
        assert (one.statuses, one.event_times, one.tiers) == (other.statuses, other.event_times, other.tiers)
        group_name, _, feature = one.name.partition("__")
        group = world.registry.groups[group_name]
        for at, status in enumerate(one.statuses):
            shown = old.frame[one.name].to_list()[at]
            if status != "OUTSIDE_MAX_AGE":
                assert same(one.values[at], other.values[at]), one.name
                continue
            stored = stored_value(world, group, feature, world.rows[at])
            assert same(google_value(one.values[at]), stored), one.name
            assert same(google_value(shown), stored), one.name


def stored_value(world: World, group: RegisteredGroup, feature: str, row: dict[str, Any]) -> Any:
    """What Google's parser finds, if the row's schema has the feature."""
    key = f"{group.name}:{entity_id([row[name] for name in group.key_names])}".encode()
    parsed = google_of(group).FromString(world.stored[key])
    since = next(one.since for one in group.features if one.name == feature)
    return None if parsed.schema_number < since else value_in(parsed, layout_of(group).field(feature))


def test_a_read_without_keys_still_has_its_groups_states() -> None:
    layout = MessageLayout((WireField(32, "f0", pl.Int64()),), "g0")
    group = replace(online_group("g0", layout, {"k0": "int64"}), freshness_us=1)
    answer = read_features(
        read_plan(RegistrySnapshot({"g0": group}, {}), ["g0:f0"], False),
        pl.DataFrame(schema={"k0": pl.Int64}),
        lambda asked: {name: Replies([]) for name in asked},
        lambda: NOW,
    )
    assert answer.freshness.state == "UNKNOWN"
