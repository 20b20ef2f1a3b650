"""Who may decide on a backfill."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from featurestore.backfill.rights import (
    SPENT,
    check_may_approve,
    check_may_reject,
    check_right,
    deciding_groups,
    exceeds_limit,
    has_right,
)
from featurestore.errors import FeatureStoreError, NotAllowed, UnknownName
from featurestore.metadata.request import BackfillRequest, RequestedWindows
from featurestore.registry.snapshot import RegisteredGroup, RegistrySnapshot
from tests.book_worker import request_of
from tests.offline_rows import group_of

LIMIT = 25.0


def group(name: str, owner: str, *approvers: str) -> RegisteredGroup:
    return replace(group_of(), name=name, owner=owner, approvers=approvers, approval_limit_usd=LIMIT)


ROUTES = group("routes", "team:network", "ana@example.com")
PLANES = group("planes", "team:fleet", "ana@example.com", "ben@example.com")
OLD = group("old", "team:attic")
REGISTRY = RegistrySnapshot({"routes": ROUTES, "planes": PLANES}, {}, {"old": OLD})


def part(name: str, cost_usd: float, **other: Any) -> RequestedWindows:
    return RequestedWindows(name, ("2026-03-01",), {"cost_usd": cost_usd, **other})


def request(*parts: RequestedWindows) -> BackfillRequest:
    return request_of(groups=parts)


def may(check: Any, asked: BackfillRequest, person: str) -> bool:
    try:
        check(asked, REGISTRY, person)
    except NotAllowed:
        return False
    return True


@pytest.mark.parametrize("person", ["team:fleet", "ana@example.com", "ben@example.com"])
def test_the_owner_and_each_approver_have_the_right(person: str) -> None:
    assert has_right(PLANES, person)
    check_right(PLANES, person)


@pytest.mark.parametrize("person", ["team:network", "eve@example.com", "", "team:flee", "ANA@example.com"])
def test_anyone_else_is_told_who_may(person: str) -> None:
    with pytest.raises(NotAllowed, match=r"team:fleet or ana@example\.com or ben@example\.com may: ask one") as refused:
        check_right(PLANES, person)
    assert repr(person) in str(refused.value)
    assert isinstance(refused.value, PermissionError)
    assert isinstance(refused.value, FeatureStoreError)


def test_an_owner_who_is_also_an_approver_is_named_once() -> None:
    with pytest.raises(NotAllowed, match=r"'planes'\. team:fleet may"):
        check_right(group("planes", "team:fleet", "team:fleet"), "eve@example.com")


@pytest.mark.parametrize(
    ("cost", "spent", "is_above"),
    [(25.0, 0.0, False), (25.01, 0.0, True), (10.0, 15.0, False), (10.0, 15.01, True), (0.0, 25.0, False)],
)
def test_a_limit_is_exceeded_by_the_cost_with_what_was_spent_before(cost: float, spent: float, is_above: bool) -> None:
    assert exceeds_limit(part("routes", cost, **{SPENT: spent}), ROUTES) is is_above


def test_an_estimate_that_says_nothing_of_earlier_spending_counts_alone() -> None:
    assert exceeds_limit(part("routes", 26.0), ROUTES)
    assert not exceeds_limit(RequestedWindows("routes", ()), ROUTES)


def test_approving_takes_the_right_on_every_group_above_its_limit_and_no_other() -> None:
    """Against the rule written out, for every pair of costs and every person."""
    people = ["team:network", "team:fleet", "ana@example.com", "ben@example.com", "eve@example.com"]
    rights = {
        "routes": {"team:network", "ana@example.com"},
        "planes": {"team:fleet", "ana@example.com", "ben@example.com"},
    }
    for routes, planes, person in product((1.0, 30.0), (1.0, 30.0), people):
        above = [name for name, cost in (("routes", routes), ("planes", planes)) if cost > LIMIT]
        expected = all(person in rights[name] for name in above or rights)
        assert may(check_may_approve, request(part("routes", routes), part("planes", planes)), person) is expected


def test_the_groups_above_their_limit_are_those_that_decide() -> None:
    above, below = part("routes", 30.0), part("planes", 1.0)
    assert deciding_groups(request(above, below), REGISTRY) == [ROUTES]
    assert deciding_groups(request(replace(above, estimate={}), below), REGISTRY) == [ROUTES, PLANES]


def test_rejecting_takes_the_right_on_any_one_group() -> None:
    asked = request(part("routes", 30.0), part("planes", 1.0))
    allowed = [
        person for person in ("team:network", "team:fleet", "ben@example.com") if may(check_may_reject, asked, person)
    ]
    assert allowed == ["team:network", "team:fleet", "ben@example.com"]
    with pytest.raises(NotAllowed, match=r"routes: team:network or ana@example\.com; planes: team:fleet"):
        check_may_reject(asked, REGISTRY, "eve@example.com")


def test_a_group_that_is_no_longer_declared_can_be_rejected_by_its_owner_and_approved_by_nobody() -> None:
    asked = request(part("old", 30.0))
    check_may_reject(asked, REGISTRY, "team:attic")
    with pytest.raises(NotAllowed):
        check_may_reject(asked, REGISTRY, "team:network")
    with pytest.raises(UnknownName, match="'old' is not registered"):
        check_may_approve(asked, REGISTRY, "team:attic")


def test_a_backfill_of_no_group_is_approved_by_nobody() -> None:
    with pytest.raises(NotAllowed, match="names no group"):
        check_may_approve(request(), REGISTRY, "team:network")
