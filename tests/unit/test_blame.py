"""The walk to the first late asset, beside a reference that lists every path of late assets through random graphs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.alerts.blame import blocking_window, first_late
from featurestore.alerts.problem import Blame
from featurestore.freshness.facts import GroupFacts, WindowFacts
from featurestore.freshness.judgement import Cause, GroupFreshness, Kind, SourceFreshness
from featurestore.registry.snapshot import RegisteredGroup, RegisteredSource, RegistrySnapshot
from tests.scale import cases

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
HOUR_US = 3_600_000_000


def registered(name: str, inputs: tuple[str, ...], **other: Any) -> RegisteredGroup:
    values: dict[str, Any] = {
        "version": 1, "kind": "windowed", "cadence": "hourly", "start": "2026-03-01T00:00:00+00:00", "entity": "shop",
        "keys": (("shop", "string"),), "features": (), "schema_number": 1, "retired_numbers": (), "retired_columns": (),
        "delay_us": 0, "publish_us": 0, "lookback_us": HOUR_US, "freshness_us": 2 * HOUR_US, "max_age_us": None,
        "is_online": False, "ttl_us": None, "min_coverage": None, "owner": f"team:{name}", "description": "",
    }  # fmt: skip
    return RegisteredGroup(**{**values, "name": name, "inputs": inputs, **other})


@dataclass(frozen=True)
class World:
    """Groups g0.. that read sources s0.. and groups of lower numbers; what is late, and since how many hours."""

    inputs: Mapping[str, tuple[str, ...]]
    silent: Mapping[str, int]
    late: Mapping[str, tuple[Kind, int]]
    held: Mapping[str, int]
    missing: frozenset[str]

    @property
    def registry(self) -> RegistrySnapshot:
        groups = {name: registered(name, inputs) for name, inputs in self.inputs.items()}
        sources = {f"s{n}": RegisteredSource(f"s{n}", "event_time", owner=f"team:s{n}") for n in range(3)}
        return RegistrySnapshot(groups, {}, {}, sources)

    def sources_of(self, name: str) -> set[str]:
        return {s for i in self.inputs[name] for s in ({i} if i in ("s0", "s1", "s2") else self.sources_of(i))}

    def found(self) -> dict[str, GroupFreshness]:
        return {name: self._one(name) for name in self.inputs if name not in self.missing}

    def _one(self, name: str) -> GroupFreshness:
        sources = tuple(
            SourceFreshness(
                s,
                NOW - (self.silent[s] * HOUR + DAY if s in self.silent else HOUR),
                DAY + HOUR if s in self.silent else HOUR,
                DAY,
                NOW - self.silent[s] * HOUR if s in self.silent else None,
            )
            for s in sorted(self.sources_of(name))
        )
        causes: tuple[Cause, ...] = ()
        if name in self.late:
            kind, hours = self.late[name]
            asset = f"online/{name}" if kind == "online" else f"offline/{name}"
            causes = (Cause(kind, "BREACH", asset, NOW - hours * HOUR, f"{asset} is late"),)
        held = (NOW - 3 * HOUR,) if name in self.held else ()
        windows = WindowFacts(
            newest=NOW - 4 * HOUR,
            due=3,
            awaited=NOW - 3 * HOUR,
            quarantined=len(held),
            held=held,
            held_since=NOW - self.held[name] * HOUR if held else None,
        )
        group = self.registry.groups[name]
        facts = GroupFacts(windows=windows)
        return GroupFreshness(group, NOW, "OK", None, None, None, None, None, sources, causes, facts)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    count = draw(st.integers(1, 7))
    names = [f"g{n}" for n in range(count)]
    inputs = {
        name: tuple(draw(st.lists(st.sampled_from(["s0", "s1", "s2", *names[:n]]), max_size=3, unique=True)))
        for n, name in enumerate(names)
    }
    hours = st.integers(1, 5)
    late = draw(st.dictionaries(st.sampled_from(names), st.tuples(st.sampled_from(get_args(Kind)), hours)))
    return World(
        inputs,
        draw(st.dictionaries(st.sampled_from(["s0", "s1", "s2"]), hours, max_size=2)),
        late,
        draw(st.dictionaries(st.sampled_from(names), hours, max_size=3)),
        frozenset(draw(st.sets(st.sampled_from(names), max_size=2))),
    )


def ends(world: World, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Every way on from the end of a path through late assets, to where nothing upstream is late: all of them, one by one."""
    here = path[-1]
    further = [s for s in sorted(world.sources_of(here)) if s in world.silent]
    for item in world.inputs[here]:
        if item in world.inputs and item not in world.missing:
            is_late = item in world.late and world.late[item][0] not in ("online", "hole")
            if is_late or item in world.held:
                further.append(item)
    if not further:
        yield path
    for item in further:
        yield from [(*path, item)] if item in world.silent else ends(world, (*path, item))


def reference(world: World, name: str) -> tuple[datetime, str] | None:
    """When the first late asset became late, and which it is."""
    if name in world.missing or name not in world.late:
        return None
    kind, hours = world.late[name]
    if kind == "online":
        return NOW - hours * HOUR, f"online/{name}"
    found = []
    for path in ends(world, (name,)):
        end = path[-1]
        if end in world.silent:
            found.append((NOW - world.silent[end] * HOUR, f"raw/{end}"))
        elif end in world.held:
            found.append((NOW - world.held[end] * HOUR, f"offline/{end}"))
        else:
            found.append((NOW - world.late[end][1] * HOUR, f"offline/{end}"))
    return min(found)


@given(world=worlds())
@settings(max_examples=cases(20_000, 300), deadline=None)
def test_the_first_late_asset_is_the_one_that_a_list_of_every_path_gives(world: World) -> None:
    found = world.found()
    for name in world.inputs:
        blame = first_late(world.registry, found, name)
        assert (None if blame is None else (blame.since, blame.asset)) == reference(world, name)


@pytest.fixture
def chain() -> World:
    """s0 -> g0 -> g1 -> g2, all of them late since 2 hours."""
    inputs = {"g0": ("s0",), "g1": ("g0",), "g2": ("g1",)}
    return World(inputs, {}, dict.fromkeys(inputs, ("late", 2)), {}, frozenset())


def blamed(world: World, name: str = "g2") -> Blame:
    blame = first_late(world.registry, world.found(), name)
    assert blame is not None
    return blame


def test_late_chain_is_the_fault_of_its_first_group_and_of_its_source_if_that_is_silent(chain: World) -> None:
    assert (blamed(chain).asset, blamed(chain).owner) == ("offline/g0", "team:g0")
    silent = blamed(replace(chain, silent={"s0": 1}))
    assert (silent.asset, silent.owner) == ("raw/s0", "team:s0")
    assert "no event newer than 2026-03-09T11:00:00+00:00" in silent.text


def test_window_in_quarantine_upstream_is_blamed_as_such(chain: World) -> None:
    only_reader = replace(chain, late={"g2": ("late", 1)}, held={"g1": 2})
    assert blamed(only_reader).asset == "offline/g1"
    assert "its gate holds window 2026-03-10-09:00 in quarantine" in blamed(only_reader).text


def test_own_window_in_quarantine_is_blamed_as_such(chain: World) -> None:
    own = replace(chain, late={"g2": ("late", 1)}, held={"g2": 2})
    assert (blamed(own).asset, "quarantine" in blamed(own).text) == ("offline/g2", True)


def with_events(world: World, name: str, **last: datetime | None) -> dict[str, GroupFreshness]:
    """What was found, where sources of a group spoke last at these instants, and none of them is silent for long yet."""
    found = world.found()
    sources = tuple(replace(one, last_event_time=last[one.name]) for one in found[name].sources)
    return {**found, name: replace(found[name], sources=sources)}


def test_window_that_had_nothing_to_read_is_the_fault_of_the_source_that_fell_silent_last(chain: World) -> None:
    both = replace(chain, inputs={**chain.inputs, "g0": ("s0", "s1")}, held={"g0": 2})
    begins = NOW - 3 * HOUR
    for s0, s1, asset in (
        (begins - HOUR, begins - DAY, "raw/s0"),
        (begins - DAY, begins - timedelta(microseconds=1), "raw/s1"),
        (begins, begins - DAY, "offline/g0"),
        (None, begins - HOUR, "raw/s1"),
        (None, None, "offline/g0"),
    ):
        blame = first_late(both.registry, with_events(both, "g0", s0=s0, s1=s1), "g2")
        assert blame is not None
        assert blame.asset == asset, (s0, s1)
    found = with_events(both, "g0", s0=begins - HOUR, s1=begins - DAY)
    blame = first_late(both.registry, found, "g2")
    assert blame is not None
    assert (blame.owner, blame.since) == ("team:s0", begins)
    assert blame.text == (
        "it has had no event newer than 2026-03-10T08:00:00+00:00, so window 2026-03-10-09:00, which the gate of g0 holds, had none to read"
    )


def test_what_a_window_reads_of_the_time_before_it_is_no_want_of_rows(chain: World) -> None:
    longer = replace(chain, held={"g0": 2})
    found = with_events(longer, "g0", s0=NOW - 5 * HOUR)
    far = replace(found["g0"], group=replace(found["g0"].group, lookback_us=4 * HOUR_US))
    for group, asset in ((found["g0"], "raw/s0"), (far, "offline/g0")):
        blame = first_late(longer.registry, {**found, "g0": group}, "g2")
        assert blame is not None
        assert blame.asset == asset


def test_group_that_never_began_is_the_fault_of_a_source_without_a_row(chain: World) -> None:
    never = replace(chain, inputs={**chain.inputs, "g0": ("s0", "s1")})
    found = with_events(never, "g0", s0=NOW, s1=None)
    facts = GroupFacts(windows=WindowFacts(), declared_since={"s1": NOW - 5 * HOUR})
    found["g0"] = replace(found["g0"], facts=facts)
    blame = first_late(never.registry, found, "g2")
    assert blame == Blame("raw/s1", "team:s1", NOW - 5 * HOUR, "it has never had a row")
    began = replace(found["g0"], last_materialized_at=NOW - DAY)
    blame = first_late(never.registry, {**found, "g0": began}, "g2")
    assert blame is not None
    assert blame.asset == "offline/g0"


def test_window_that_is_held_before_any_is_in_production_is_blamed_as_such(chain: World) -> None:
    found = with_events(chain, "g0", s0=NOW)
    facts = GroupFacts(windows=WindowFacts(held=(NOW - 3 * HOUR,), held_since=NOW - HOUR, quarantined=1))
    blame = first_late(chain.registry, {**found, "g0": replace(found["g0"], facts=facts)}, "g2")
    assert blame is not None
    assert (blame.since, blame.text) == (NOW - HOUR, "its gate holds window 2026-03-10-09:00 in quarantine")


def test_old_window_in_quarantine_that_nobody_waits_for_is_not_blamed(chain: World) -> None:
    found = chain.found()
    windows = found["g1"].facts.windows
    assert windows is not None
    for start, blocks in ((NOW - 30 * HOUR, False), (NOW - 4 * HOUR, False), (NOW - 3 * HOUR, True), (NOW, False)):
        one = replace(found["g1"], facts=GroupFacts(windows=replace(windows, held=(start,))))
        assert (blocking_window(found["g2"], one) == start) is blocks, start


def test_hole_upstream_is_blamed_only_by_who_waits_for_it(chain: World) -> None:
    holed = replace(chain, late={"g1": ("hole", 5), "g2": ("late", 1)})
    found = holed.found()
    windows = found["g1"].facts.windows
    assert windows is not None
    for start, asset in ((NOW - 3 * HOUR, "offline/g1"), (NOW - 30 * HOUR, "offline/g2")):
        one = replace(found["g1"], facts=GroupFacts(windows=replace(windows, gaps=(start,))))
        blame = first_late(holed.registry, {**found, "g1": one}, "g2")
        assert blame is not None
        assert blame.asset == asset
    one = replace(found["g1"], causes=(), facts=GroupFacts(windows=replace(windows, gaps=(NOW - 3 * HOUR,))))
    blame = first_late(holed.registry, {**found, "g1": one}, "g2")
    assert blame == Blame("offline/g1", "team:g1", NOW - 2 * HOUR, "its window 2026-03-10-09:00 was never promoted")


def test_copy_that_is_behind_is_blamed_itself(chain: World) -> None:
    assert blamed(replace(chain, late={"g2": ("online", 1), "g1": ("late", 2)})).asset == "online/g2"


def test_group_that_is_well_is_nobodys_fault(chain: World) -> None:
    assert first_late(chain.registry, replace(chain, late={}).found(), "g2") is None
