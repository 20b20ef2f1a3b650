"""A static group with an SLO: each load confirms it, whether it changes a row or not."""

from dataclasses import replace
from datetime import datetime

import pytest

from featurestore.freshness.judgement import GroupFreshness
from featurestore.freshness.watch import FreshnessWatch
from tests.platform.kiosks import CLOSED, DAY, MINUTE, T0, kiosk_profile, kiosks, register
from tests.platform.sandbox import Sandbox

WEEK = 7 * DAY
WEEKLY = replace(kiosk_profile, online=None, level=replace(kiosk_profile.level, slo=WEEK))
NAME, ASSET = WEEKLY.stored_name, f"offline/{WEEKLY.stored_name}"
PLACES = [{"kiosk": name, "seats": 4} for name in "abcdef"]


@pytest.fixture
def loaded(sandbox: Sandbox) -> Sandbox:
    sandbox.now = T0
    sandbox.use(kiosks(WEEKLY))
    sandbox.ingest(register, PLACES)
    assert sandbox.run(ASSET).success
    return sandbox


def look(sandbox: Sandbox) -> GroupFreshness:
    journal = sandbox.resource().settings().freshness_journal(lambda: sandbox.now)
    return FreshnessWatch(sandbox.offline, None).look(journal.confirmed())[NAME]


def at(sandbox: Sandbox, now: datetime) -> str:
    sandbox.now = now
    return look(sandbox).status


def test_a_load_that_changes_nothing_makes_it_fresh_again(loaded: Sandbox) -> None:
    assert at(loaded, T0 + WEEK - MINUTE) == "WARN"
    assert at(loaded, T0 + WEEK) == "BREACH"
    version = loaded.version(NAME)
    assert loaded.run(ASSET).success
    assert loaded.version(NAME) == version
    assert look(loaded).status == "OK"
    assert at(loaded, T0 + 2 * WEEK) == "BREACH"


def test_a_load_that_its_gate_refused_does_not(loaded: Sandbox) -> None:
    loaded.ingest(register, [{"kiosk": name, "seats": CLOSED} for name in "abcdef"])
    loaded.now = T0 + WEEK
    assert not loaded.run(ASSET).success
    assert look(loaded).status == "BREACH"
