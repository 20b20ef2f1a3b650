"""The board: what its pages, its JSON and its metrics say, over real stores in folders and with a clock that stands."""

import asyncio
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from featurestore.board.app import create_app
from featurestore.board.lags import STEPS, DayOfLags
from featurestore.board.metrics import group_metrics
from featurestore.board.page import Filter
from featurestore.board.pictures import lag_picture, status_strip
from featurestore.board.watching import BoardWatch, Look, Standing
from featurestore.cli.freshness import freshness_text
from featurestore.errors import StoreUnavailable
from featurestore.freshness.document import freshness_documents
from featurestore.freshness.facts import OnlineFacts, WindowFacts
from featurestore.freshness.journal import Lag
from featurestore.freshness.judgement import GroupFreshness, judge
from tests.cli_project import DAY, NOW, Project, fill
from tests.contract.asgi import Answer, alive, call
from tests.contract.board_process import running_board
from tests.offline_rows import SetClock
from tests.platform.airline import processes_marked
from tests.scale import cases, exam_scale, require_programs
from tests.unit.test_freshness import HOUR, MINUTE, facts, hourly, judged
from tests.waiting import wait_for

HOSTILE = "\"><script>alert(1)</script>&'{{ 7*7 }}"
VOID = {"meta", "input", "br", "link"}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with pytest.MonkeyPatch.context() as patched:
        project = Project(tmp_path_factory.mktemp("board"))
        patched.chdir(project.folder)
        patched.syspath_prepend(str(project.folder))
        fill(project)
        yield project


@pytest.fixture
def watch(filled: Project) -> Iterator[BoardWatch]:
    """A board over a store with one group of days and one that is loaded; looked at once."""
    filled.clock.now = NOW
    watch = watch_of(filled)
    watch.look_once()
    assert watch.standing.trouble == ""
    yield watch
    watch.close()


def watch_of(project: Project) -> BoardWatch:
    return BoardWatch(lambda: project.store, project.clock, 30.0)


def ask(watch: BoardWatch, path: str) -> Answer:
    """One request, without looks that go on by themselves."""
    return asyncio.run(call(create_app(watch), path))


def page(watch: BoardWatch, path: str = "/", status: int = 200) -> str:
    answer = ask(watch, path)
    assert answer.status == status
    return answer.body.decode()


class Words(HTMLParser):
    """The words of a page outside of its style, and that every element is closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open[-1] in {"option", "p", "li", "th", "td", "tr"} and self.open[-1] != tag:
            self.open.pop()
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if data.strip() and "style" not in self.open:
            self.words.append(data.strip())


def words(text: str) -> str:
    return " ".join(Words(text).words)


def standing_of(found: list[GroupFreshness], history: Mapping[str, Any] | None = None) -> Standing:
    """As after a look that found these."""
    at = found[0].at if found else NOW
    documents = freshness_documents(found, history or {}, at)
    looked_at = {one.group.name: at for one in found}
    return Standing(Look(at, 0.1, documents, history or {}, looked_at, group_metrics(documents)), looks=1)


def never() -> BoardWatch:
    def open_store() -> Any:
        raise StoreUnavailable("The bucket cannot be reached.")

    return BoardWatch(open_store, SetClock(judged().at), 30.0)


def named(name: str, **facts: Any) -> GroupFreshness:
    return judged(replace(hourly(), name=name, tier="hourly"), **facts)


def every_status() -> list[GroupFreshness]:
    """A group of each status, and one whose copy did not answer."""
    at = judged().at
    return [
        named("well"),
        named("late", windows=WindowFacts(newest=at - 3 * HOUR, due=2, late_since=at - MINUTE, holes=3, quarantined=4)),
        named("broken", materialized_at=at - 5 * HOUR),
        named("new", materialized_at=None, windows=WindowFacts()),
        named("dark", online=OnlineFacts(unknown="node 3 does not answer")),
    ]


# what it says


def test_every_status_is_told_by_a_word_and_by_a_form() -> None:
    watch = never()
    watch.standing = standing_of(every_status())
    text = page(watch)
    said = words(text)
    for expected in ("BREACH 1", "WARN 1", "NEVER 1", "OK 2", "Windows: 2 due, 3 holes, 4 in quarantine"):
        assert expected in said
    assert "3 h beyond its SLO of 2 h" in said
    assert "The online copies of 1 group were not seen. node 3 does not answer" in said
    for status in ("OK", "WARN", "BREACH", "NEVER"):
        assert f'class="mark {status}"' in text
    assert said.index("broken") < said.index("new") < said.index("late") < said.index("well")


def test_the_page_needs_nothing_but_itself() -> None:
    watch = never()
    watch.standing = standing_of(every_status())
    for text in (page(watch), page(watch, "/group/late")):
        assert "<script" not in text
        assert re.findall(r"""(?:src|href)=["']?(?!/)[^"'#]+""", text) == []
        assert "@media (prefers-color-scheme:dark)" in text
        assert 'name="viewport"' in text


def test_hostile_names_stay_text() -> None:
    watch = never()
    found = judged(replace(hourly(), name=HOSTILE, owner=HOSTILE, tier=HOSTILE), online=OnlineFacts(unknown=HOSTILE))
    watch.standing = standing_of([found], {HOSTILE: [(found.at - HOUR, "BREACH"), (found.at - MINUTE, "OK")]})
    (link,) = re.findall(r'<a href="(/group/[^"]+)"', page(watch))
    for path in ("/", link, f"/?name={quote(HOSTILE)}", "/group/%3Cscript%3Ealert(1)%3C/script%3E"):
        text = ask(watch, path).body.decode()
        assert "<script" not in text
        assert "49" not in words(text).replace(HOSTILE, "")
    assert HOSTILE in words(page(watch, link))
    (family,) = [f for f in text_string_to_metric_families(metrics(watch)) if f.name == "featurestore_group_info"]
    assert family.samples[0].labels["group"] == HOSTILE


def test_a_group_has_a_page_of_its_own(watch: BoardWatch) -> None:
    said = words(page(watch, "/group/carrier_delay_daily"))
    for expected in ("team:ops", "36 hours", "Newest window 2026-03-09 00:00 UTC", "departures", "Materialization lag"):
        assert expected in said
    assert "No group is called nothing" in words(page(watch, "/group/nothing", 404)).replace(" .", ".")


def test_groups_are_chosen_by_status_owner_tier_and_name(watch: BoardWatch) -> None:
    assert "1 of 2" in words(page(watch, "/?owner=team:fleet"))
    assert "carrier_delay_daily" not in words(page(watch, "/?name=SEAT"))
    assert "No group is so." in words(page(watch, "/?status=NEVER"))
    assert Filter.of({"owner": "a b", "name": "x&y"}).link(status="OK") == "/?status=OK&owner=a+b&name=x%26y"


def test_of_very_many_groups_the_worst_are_shown_and_all_can_be_asked_for() -> None:
    watch = never()
    watch.standing = standing_of([named(f"g{number:04}") for number in range(300)])
    assert page(watch).count('class="name"') == 100
    assert "The worst 100 of 300." in words(page(watch))
    assert page(watch, "/?all=1").count('class="name"') == 300


def test_a_store_without_groups_says_so() -> None:
    watch = never()
    watch.standing = standing_of([])
    assert "No groups are declared." in words(page(watch))


# the same as JSON and as metrics


def test_json_has_the_documents_of_the_command_line(watch: BoardWatch, filled: Project) -> None:
    answer = ask(watch, "/freshness.json").json
    assert answer["groups"] == filled.json("freshness")
    assert (answer["trouble"], answer["is_current"], answer["looked_at"]) == ("", True, NOW.isoformat())


def metrics(watch: BoardWatch) -> str:
    return page(watch, "/metrics")


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_are_what_the_look_found() -> None:
    watch = never()
    found = every_status()
    watch.standing = standing_of(found, {"well": [(found[0].at - 2 * HOUR, "BREACH"), (found[0].at - HOUR / 2, "OK")]})
    told = samples(metrics(watch))
    for one in found:
        own = (("group", one.group.name),)
        lags = {"materialization": one.materialization_lag, "data": one.data_lag, "online": one.online_lag}
        for kind, lag in lags.items():
            value = told.get((f"featurestore_group_{kind}_lag_seconds", own))
            assert value == (None if lag is None else lag.total_seconds())
        assert told["featurestore_group_slo_seconds", own] == 7200.0
        set_to = {
            status: told["featurestore_group_status", (*own, ("status", status))]
            for status in ("OK", "WARN", "NEVER", "BREACH")
        }
        assert set_to == {status: float(status == one.status) for status in set_to}
    late = (("group", "late"),)
    counts = [told[f"featurestore_group_{kind}_windows", late] for kind in ("due", "hole", "quarantined")]
    assert counts == [2, 3, 4]
    assert told["featurestore_group_source_lag_seconds", (("group", "well"), ("source", "feed"))] == 900.0
    assert told["featurestore_group_attainment_ratio", (("group", "well"), ("span", "1h"))] == 0.5
    assert told["featurestore_group_online_unknown", (("group", "dark"),)] == 1
    assert told["featurestore_board_last_look_timestamp_seconds", ()] == found[0].at.timestamp()


def test_the_terminal_counts_holes_and_windows_in_quarantine_below_its_lines() -> None:
    found = every_status()
    told = freshness_text(freshness_documents(found, {}, found[0].at)).splitlines()
    assert [line for line in told if "quarantine" in line] == ["-       late: 3 holes, 4 in quarantine."]


def test_a_pushed_group_without_freshness_is_shown_beside_how_late_its_rows_may_come() -> None:
    group = replace(
        hourly(),
        name="clicks",
        kind="pushed",
        cadence="pushed",
        freshness_us=None,
        arrival_us=1_000_000,
        tier="real_time",
    )
    came = judged().at - HOUR
    found = judge(
        group, [], facts(last_events={"clicks": came - HOUR / 12_000}, materialized_at=came, windows=None), came + HOUR
    )
    watch = never()
    watch.standing = standing_of([found])
    assert "real_time, SLO 1 second" in words(page(watch))
    said = words(page(watch, "/group/clicks"))
    assert "SLO 1 second" in said
    assert "Materialization lag 1 h no limit" in said
    assert "Data lag 0.3 s limit 1.0 s" in said
    told = samples(metrics(watch))
    own = (("group", "clicks"),)
    assert (told["featurestore_group_slo_seconds", own], told["featurestore_group_slo_lag_seconds", own]) == (1.0, 0.3)
    _, line = freshness_text(freshness_documents([found], {}, found.at)).splitlines()
    assert re.split(r"  +", line)[:6] == ["clicks", "1 second", "0.3 s", "0.3 s", "0.0 s", "OK"]


def test_promtool_finds_nothing_wrong_with_the_metrics(watch: BoardWatch) -> None:
    require_programs("promtool", "promtool", remedy="on Debian: apt-get install --no-install-recommends prometheus")
    text = metrics(watch)
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


# looking


def test_no_request_reads_a_store(watch: BoardWatch, filled: Project, tmp_path: Path) -> None:
    """Whatever is asked, it is answered from the last look: also while the store is away."""
    away = tmp_path / "away"
    before = {path: page(watch, path) for path in ("/", "/group/seat_profile", "/freshness.json")}
    groups = [line for line in metrics(watch).splitlines() if line.startswith("featurestore_")]
    shutil.move(filled.root, away)
    try:
        assert {path: page(watch, path) for path in before} == before
        assert [line for line in metrics(watch).splitlines() if line.startswith("featurestore_")] == groups
        assert not filled.root.exists()
    finally:
        shutil.move(away, filled.root)


def test_a_store_that_goes_away_is_told_and_comes_back(filled: Project, tmp_path: Path) -> None:
    filled.clock.now = NOW
    watch = watch_of(filled)
    watch.look_once()
    shutil.move(filled.root, tmp_path / "away")
    filled.clock.now = NOW + MINUTE
    watch.look_once()
    said = words(page(watch))
    assert "The last look failed." in said
    assert "What is below is of 2026-03-10 06:00 UTC, 1 min ago." in said
    assert "carrier_delay_daily" in said
    assert samples(metrics(watch))["featurestore_board_look_failures_total", ()] == 1
    shutil.rmtree(filled.root, ignore_errors=True)  # what was written where the store had been
    shutil.move(tmp_path / "away", filled.root)
    watch.look_once()
    assert "The last look failed" not in words(page(watch))
    assert watch.standing.look is not None
    assert watch.standing.look.at == NOW + MINUTE


def test_figures_that_are_too_old_are_not_exported_as_the_present(watch: BoardWatch, filled: Project) -> None:
    filled.clock.now = NOW + timedelta(minutes=2)
    assert "featurestore_group_status" in metrics(watch)
    page(watch, "/ready", 200)
    filled.clock.now = NOW + timedelta(minutes=3)
    told = metrics(watch)
    assert "featurestore_group_" not in told
    assert "featurestore_board_last_look_timestamp_seconds 1.77" in told
    page(watch, "/ready", 503)
    page(watch, "/health", 200)
    assert ask(watch, "/freshness.json").json["is_current"] is False
    assert "This is not the present." in words(page(watch))


def test_before_the_first_look_every_path_answers() -> None:
    watch = never()
    for path, status in {"/": 200, "/group/a": 404, "/freshness.json": 200, "/metrics": 200, "/ready": 503}.items():
        page(watch, path, status)
    assert "The first look is under way" in words(page(watch))
    watch.look_once()
    assert "The bucket cannot be reached." in words(page(watch))


def test_an_error_that_nobody_foresaw_is_counted_and_its_words_are_not_shown() -> None:
    def open_store() -> Any:
        raise ValueError("redis://:secret@host")

    watch = BoardWatch(open_store, SetClock(NOW), 30.0)
    watch.look_once()
    assert watch.standing.failures == 1
    assert "ValueError" in page(watch)
    assert "secret" not in page(watch) + page(watch, "/freshness.json") + page(watch, "/ready", 503)


def test_a_changed_registry_is_taken_up(filled: Project) -> None:
    filled.clock.now = NOW
    watch = watch_of(filled)
    watch.look_once()
    filled.declare(("freshness=timedelta(hours=36)", "freshness=timedelta(hours=37)"))
    filled.run("apply")
    watch.look_once()
    assert "SLO 37 hours" in words(page(watch))


def test_looks_go_on_by_themselves_and_end(filled: Project) -> None:
    filled.clock.now = NOW
    watch = BoardWatch(lambda: filled.store, filled.clock, 0.05)

    async def live() -> None:
        async with alive(create_app(watch)):
            for _ in range(2400):
                if watch.standing.looks >= 3:
                    return
                await asyncio.sleep(0.05)

    asyncio.run(live())
    assert watch.standing.looks >= 3
    # A look under way is waited for by the end of the board for some seconds only.
    wait_for("the end", lambda: "board-looks" not in {thread.name for thread in threading.enumerate()}, 60)


def test_history_that_nobody_keeps_is_told(watch: BoardWatch, filled: Project) -> None:
    assert "History and attainment are not kept" in words(page(watch))
    journal = filled.store.settings.freshness_journal(filled.clock)
    assert watch._opened is not None
    found = list(watch._opened.watch.look(now=NOW).values())
    journal.record(found)
    watch.look_once()
    assert "not kept" not in words(page(watch))
    assert samples(metrics(watch))["featurestore_board_last_record_timestamp_seconds", ()] == NOW.timestamp()


def test_a_location_whose_sensor_died_is_told_beside_one_that_is_looked_at(filled: Project) -> None:
    filled.clock.now = NOW + DAY
    watch = watch_of(filled)
    watch.look_once()
    assert watch._opened is not None
    journal = filled.store.settings.freshness_journal(filled.clock)
    dead, alive = watch._opened.watch.look(now=NOW + DAY).values()
    journal.record([replace(dead, at=NOW + DAY - HOUR), alive])
    watch.look_once()
    assert f"are not kept of {dead.group.name} since 2026-03-11 05:00 UTC" in words(page(watch))
    assert ask(watch, "/freshness.json").json["recorded_at"] == (NOW + DAY - HOUR).isoformat()
    shares = {one["group"]: one["attainment"]["30d"] for one in ask(watch, "/freshness.json").json["groups"]}
    assert shares[dead.group.name] is None


def test_groups_that_nobody_keeps_are_named_up_to_three() -> None:
    watch = never()
    watch.standing = standing_of([named(f"g{number}") for number in range(7)])
    look = watch.standing.look
    assert look is not None
    watch.standing = Standing(replace(look, looked_at={"g0": look.at, "g1": look.at - HOUR}), looks=1)
    assert "are not kept of g1, g2, g3 and 3 more" in words(page(watch))
    assert look.recorded_at == look.at
    assert ask(watch, "/freshness.json").json["recorded_at"] is None, "some were never looked at"


# pictures


@settings(max_examples=cases(1000, 60), deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 47 * 60), st.floats(0, 1e6) | st.none()), max_size=40),
    st.integers(24 * 60, 48 * 60),
)
def test_each_step_of_a_day_has_its_highest_lag(kept: list[tuple[int, float | None]], until: int) -> None:
    day = DayOfLags()
    start = judged().at - 2 * DAY
    kept = [(minute, lag) for minute, lag in kept if minute <= until]
    day.take_kept("g", [Lag(start + minute * MINUTE, "OK", lag, None, lag) for minute, lag in kept])
    last = until // 15
    expected = [
        max((lag for minute, lag in kept if minute // 15 == step and lag is not None), default=None)
        for step in range(last - STEPS + 1, last + 1)
    ]
    series = day.series("g", start + until * MINUTE)
    assert [lags[0] for lags in series] == expected
    assert [lags[2] for lags in series] == expected


def test_looks_add_to_what_was_kept_and_what_is_older_than_a_day_is_forgotten() -> None:
    day, now = DayOfLags(), judged()
    day.take_kept("spend", [Lag(now.at - 2 * DAY, "OK", 5.0, None, None), Lag(now.at - HOUR, "OK", 7.0, None, None)])
    day.take_look([now])
    known = [lags[0] for lags in day.series("spend", now.at) if lags[0] is not None]
    assert known == [7.0, 300.0]
    assert len(day._groups["spend"]) == 2


def test_a_picture_has_gaps_where_nothing_is_known_and_is_thick_beyond_the_limit() -> None:
    drawn = lag_picture([1.0, 2.0, None, 9.0, 12.0, None, 4.0], 8.0, "lag")
    assert drawn.count('<polyline class="lag"') == 2
    assert drawn.count('<polyline class="over"') == 1
    assert drawn.count('<circle class="lag dot"') == 1
    assert "4.0 s last, 12 s at most, limit 8.0 s" in drawn


@settings(max_examples=cases(500, 40), deadline=None)
@given(st.lists(st.tuples(st.integers(1, 1000), st.sampled_from(["OK", "WARN", "BREACH", "NEVER"])), max_size=15))
def test_bars_of_statuses_lie_where_they_were(history: list[tuple[int, Any]]) -> None:
    now = judged().at
    ago, kept, seen = sum(length for length, _ in history), [], []
    for length, status in history:
        kept.append((now - ago * MINUTE, status))
        ago -= length
        if ago < 24 * 60:
            seen.append((status, ago))
    bars = re.findall(r'<rect class="(\w+)" x="([\d.]+)" y="\d+" width="([\d.]+)"', status_strip(kept, now, DAY))
    assert [status for status, _, _ in bars] == [status for status, _ in seen]
    for (_, x, width), (_, minutes_ago) in zip(bars, seen, strict=True):
        assert float(x) + float(width) >= 160 * (1 - minutes_ago / (24 * 60)) - 0.2


def test_time_in_which_nobody_looked_has_no_bar_and_is_told_in_words() -> None:
    now = judged()
    history: Any = [(now.at - 9 * HOUR, "OK"), (now.at - 6 * HOUR, "UNKNOWN"), (now.at - 3 * HOUR, "BREACH")]
    strip = status_strip(history, now.at, DAY)
    assert re.findall(r'<rect class="(\w+)"', strip) == ["OK", "BREACH"]
    assert "UNKNOWN from 2026-03-10 18:00 UTC" in strip
    watch = never()
    watch.standing = standing_of([now], {"spend": history})
    assert "UNKNOWN 2026-03-10 18:00 UTC 3 h" in words(page(watch, "/group/spend"))
    (one,) = ask(watch, "/freshness.json").json["groups"]
    assert one["attainment"] == {"1h": 0.0, "24h": 0.5, "30d": 0.5}


# as a process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_ends_the_board_and_all_of_it(filled: Project, tmp_path: Path, number: signal.Signals) -> None:
    if number is signal.SIGINT and not exam_scale():
        pytest.skip("the other signal waits for the exam")
    mark = f"mark-{uuid4().hex}"
    variables = {"FEATURESTORE_ROOT": str(filled.root), "FEATURESTORE_TEST_MARK": mark}
    with running_board(variables, tmp_path / "log", "--look-seconds", "0.5") as board:
        assert "carrier_delay_daily" in board.get("/")
        # The process has the real clock: three days of March are long over. What a slow look found soon counts no more.
        breach = 'featurestore_group_status{group="carrier_delay_daily",status="BREACH"} 1'
        wait_for("the metrics", lambda: breach in board.get("/metrics"), 120)
        taken = filled.run("board", "--port", str(board.port), exit_code=1)
        assert "cannot be had" in taken.output
        assert board.end(number) == 0
    # The helper that Python gave its processes ends a moment after them.
    wait_for("the end of every process", lambda: processes_marked(mark) == {}, 60)
    said = board.log.read_text()
    assert f"The board of {filled.root} is at {board.url}" in said
    assert "Traceback" not in said
