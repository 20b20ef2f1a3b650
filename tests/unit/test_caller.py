"""What a key allows, against a brute-force reading of its scopes; and the forms in which a key is shown to a server."""

import random
from fnmatch import fnmatchcase

import pytest

from featurestore.auth.caller import ANYONE, EVERYTHING, Action, Caller, Rights
from featurestore.auth.key import digest_of, make_key, parse_authorization, parse_key
from featurestore.errors import InvalidInput, NotAllowed, NotAuthenticated
from featurestore.references import RequestedGroup, resolve
from featurestore.registry.compile import compile_snapshot
from featurestore.registry.snapshot import RegisteredService, RegistrySnapshot
from tests.catalogs import shops
from tests.scale import cases

NAMES = ["a", "ab", "ab_v2", "b", "b_1", "abc"]
SCOPES = [*NAMES, "*", "a*", "ab*", "b_*"]


def caller_of(rights: Rights) -> Caller:
    return Caller("0" * 12, "tests", "team:tests", rights)


def draw_rights(draw: random.Random) -> Rights:
    while True:
        actions: list[Action] = ["read", "push"]
        chosen = tuple(action for action in actions if draw.random() < 0.7)
        services, groups = (tuple(draw.sample(SCOPES, draw.randrange(3))) for _ in range(2))
        try:
            return Rights(chosen, services, groups)
        except InvalidInput:
            continue


def is_covered(scopes: tuple[str, ...], name: str) -> bool:
    return any(fnmatchcase(name, scope) for scope in scopes)


def is_allowed(caller: Caller, action: Action, groups: list[str], services: list[str]) -> bool:
    try:
        caller.require(action, groups=groups, services=services)
    except NotAllowed:
        return False
    return True


def test_exactly_what_the_scopes_cover_is_allowed() -> None:
    draw, outcomes = random.Random(3), set()
    for _ in range(cases(100_000, 4_000)):
        rights = draw_rights(draw)
        action: Action = draw.choice(["read", "push"])
        groups, services = (draw.sample(NAMES, draw.randrange(3)) for _ in range(2))
        expected = (
            bool(groups or services)
            and action in rights.actions
            and all(is_covered(rights.groups, name) for name in groups)
            and all(action == "read" and is_covered(rights.services, name) for name in services)
        )
        assert is_allowed(caller_of(rights), action, groups, services) == expected, (rights, action, groups, services)
        outcomes.add((expected, action, bool(groups), bool(services)))
    assert len(outcomes) == 12, "every way to be allowed and refused has come up; a push to a service is never allowed"


@pytest.fixture(scope="module")
def registry() -> RegistrySnapshot:
    snapshot = compile_snapshot(shops(), None)
    some = ["shop_sales_daily", "shop_profile"]
    services = {
        f"service_{i}": RegisteredService(f"service_{i}", tuple(refs), "team:tests")
        for i, refs in enumerate(_references(snapshot, name) for name in some)
    }
    return RegistrySnapshot(snapshot.groups, services)


def _references(snapshot: RegistrySnapshot, group: str) -> list[str]:
    return [f"{group}:{name}" for name in snapshot.group(group).feature_names]


def test_features_are_allowed_by_their_group_or_by_a_service_that_names_them(registry: RegistrySnapshot) -> None:
    draw, outcomes = random.Random(5), set()
    references = [reference for name in registry.groups for reference in _references(registry, name)]
    scopes = ["*", "shop_*", "service_0", "service_*", "service_1", "shop_sales_daily", "shop_profile", "aisle*"]
    for _ in range(cases(20_000, 1_500)):
        rights = Rights(("read",), tuple(draw.sample(scopes, 1)), tuple(draw.sample(scopes, draw.randrange(2))))
        asked = draw.sample(references, draw.randrange(1, 4))
        requested = resolve(registry, asked, full_feature_names=True)
        expected = all(_may_read(rights, registry, reference) for reference in asked)
        assert _reads(caller_of(rights), requested, registry) == expected, (rights, asked)
        outcomes.add(expected)
    assert outcomes == {True, False}


def _may_read(rights: Rights, registry: RegistrySnapshot, reference: str) -> bool:
    by_service = any(
        is_covered(rights.services, name) and reference in service.references
        for name, service in registry.services.items()
    )
    return by_service or is_covered(rights.groups, reference.partition(":")[0])


def _reads(caller: Caller, requested: list[RequestedGroup], registry: RegistrySnapshot) -> bool:
    try:
        caller.require_features(requested, registry.services)
    except NotAllowed:
        return False
    return True


def test_a_key_that_may_only_push_reads_nothing_and_nothing_is_read_by_naming_nothing(
    registry: RegistrySnapshot,
) -> None:
    requested = resolve(registry, ["shop_profile:" + registry.group("shop_profile").feature_names[0]])
    assert not _reads(caller_of(Rights(("push",), ("*",), ("*",))), requested, registry)
    assert _reads(ANYONE, requested, registry)
    assert not _reads(ANYONE, [], registry)


def test_a_refusal_says_what_was_asked_and_what_the_key_may_do() -> None:
    caller = caller_of(Rights(("read",), ("delay_v1",), ("carrier*",)))
    with pytest.raises(NotAllowed) as refused:
        caller.require("read", groups=["carrier_daily", *[f"plane_{i}" for i in range(9)]])
    assert str(refused.value) == (
        "Key 000000000000 ('tests') may not read group 'plane_0', group 'plane_1', group 'plane_2', group 'plane_3', "
        "group 'plane_4' and 4 more. It may read, services ['delay_v1'], groups ['carrier*']. "
        "Ask team:tests for a key that allows it."
    )
    assert not isinstance(refused.value, NotAuthenticated)


@pytest.mark.parametrize(
    ("actions", "services", "groups"),
    [
        ((), ("a",), ()),
        (("read",), (), ()),
        (("push",), ("a",), ()),
        (("write",), ("a",), ()),
        (("read",), ("",), ()),
        (("read",), ("*a",), ()),
        (("read",), ("a*b",), ()),
        (("read",), (), ("**",)),
        (("read",), (), ("a\n",)),
    ],
)
def test_rights_that_allow_nothing_or_have_no_form_are_refused(
    actions: tuple[Action, ...], services: tuple[str, ...], groups: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidInput):
        Rights(actions, services, groups)


def test_a_key_has_256_random_bits_and_only_its_whole_form_is_read() -> None:
    made = [make_key() for _ in range(100)]
    assert len({key_id for key_id, _ in made}) == len({key.rpartition("_")[2] for _, key in made}) == 100
    for key_id, key in made:
        presented = parse_key(key)
        assert presented is not None
        assert (presented.key_id, presented.sha256) == (key_id, digest_of(key))
        assert key not in repr(presented)
        assert presented.sha256 not in repr(presented)
        assert parse_authorization(f"Bearer {key}") == presented
        assert len(key.rpartition("_")[2]) * 4 == 256
        for other in (key[:-1], f"{key}0", key.upper(), f" {key}", f"{key}\n", key.replace("fs_", "fs-")):
            assert parse_key(other) is None


def test_auth_that_is_off_allows_every_named_thing() -> None:
    assert ANYONE.rights == EVERYTHING
    ANYONE.require("read", services=["x"], groups=["y"])
    ANYONE.require("push", groups=["y"])
