"""Slots and nodes of a cluster: where keys lie, and what follows when nodes disagree."""

import random

import pytest
from redis.crc import key_slot

from featurestore.online.records import Ownership, PartKeys, slot_mask
from featurestore.online.redis.topology import NO_NODE, SLOTS, Topology, merged, read_claims, slots_of, tag_of
from tests.scale import cases

SAID = """\
a1 10.0.0.1:7001@17001 myself,master - 0 0 3 connected 0-5460 7000 [7001->-b2]
b2 10.0.0.2:7002@17002,node-b master - 0 1 7 connected 5461-6999 7001-10922
c3 10.0.0.3:7003@17003,node-c,shard-id=x master,fail - 0 1 5 connected 10923-16383
d4 10.0.0.4:7004@17004 slave a1 0 1 3 connected
e5 10.0.0.5:7005@17005 master - 0 1 0 connected
f6 :0@0 master,noaddr - 0 1 0 disconnected 12
"""


def claims(said: str = SAID, *, prefers_names: bool = False) -> Topology:
    return merged(read_claims(said, asked_host="asked", prefers_names=prefers_names))


def line(node: str, config: int, slots: str, flags: str = "master") -> str:
    return f"{node} 10.0.0.1:{7000 + int(node)}@1 {flags} - 0 0 {config} connected {slots}\n"


def test_primaries_with_slots_are_nodes_whether_they_answer_or_not() -> None:
    assert [(node.address, node.ownership) for node in claims().nodes] == [
        ("10.0.0.1:7001", Ownership("a1", 3, "0-5460,7000-7000")),
        ("10.0.0.2:7002", Ownership("b2", 7, "5461-6999,7001-10922")),
        ("10.0.0.3:7003", Ownership("c3", 5, "10923-16383")),
    ]


def test_certificates_have_names_and_so_have_nodes_then() -> None:
    assert [node.host for node in claims(prefers_names=True).nodes] == ["10.0.0.1", "node-b", "node-c"]


def test_a_node_that_does_not_know_its_address_is_where_it_was_asked() -> None:
    said = "a1 :7001@17001 myself,master - 0 0 1 connected 0-16383\n"
    assert claims(said).nodes[0].address == "asked:7001"


def test_of_two_that_claim_a_slot_the_higher_config_epoch_has_it() -> None:
    """The cluster's own rule; who is asked first does not matter."""
    old = line("1", 1, "0-8191", "myself,master") + line("2", 2, "8192-16383")
    new = line("1", 1, "100-8191") + line("2", 3, "0-99 8192-16383", "myself,master")
    for order in ([old, new], [new, old]):
        nodes = merged([c for said in order for c in read_claims(said, asked_host="", prefers_names=False)]).nodes
        assert [node.ownership for node in nodes] == [
            Ownership("1", 1, "100-8191"),
            Ownership("2", 3, "0-99,8192-16383"),
        ]


def test_a_replica_that_took_over_has_all_slots_of_the_one_before() -> None:
    said = line("1", 1, "0-8191", "master,fail") + line("2", 2, "8192-16383") + line("3", 4, "0-8191", "myself,master")
    assert [node.port for node in claims(said).nodes] == [7002, 7003]


def test_keys_are_split_by_the_node_that_has_their_slot() -> None:
    topology = merged(
        read_claims(line("1", 1, "0-8191") + line("2", 2, "8192-12000"), asked_host="", prefers_names=False)
    )
    keys = [b"group:%d" % number for number in range(2000)]
    parts = topology.split(keys)
    assert sorted(at for positions in parts.values() for at in positions) == list(range(2000))
    for number, positions in parts.items():
        slots = slots_of([keys[at] for at in positions])
        if number == NO_NODE:
            assert all(slot > 12000 for slot in slots)
        else:
            assert topology.nodes[number].has_slot[slots].all()
    assert set(parts) == {0, 1, NO_NODE}


def test_slots_are_those_of_the_specification() -> None:
    seeded = random.Random(7)
    alphabet = [b"a", b"{", b"}", b"{}", b"x1", "é".encode(), b":"]
    keys = [b"".join(seeded.choices(alphabet, k=seeded.randint(0, 8))) for _ in range(cases(100_000, 5_000))]
    assert slots_of(keys).tolist() == [key_slot(key) for key in keys]


@pytest.mark.parametrize("slot", [0, 1, 5460, 16383])
def test_a_parts_own_keys_are_in_its_slot(slot: int) -> None:
    keys = PartKeys(tag_of(slot))
    own = [keys.epoch, keys.generation("g"), keys.state("g_v2"), keys.fill("g")]
    assert set(slots_of(own).tolist()) == {slot}
    assert len(set(own)) == 4


def test_a_nodes_own_keys_are_in_its_highest_slot() -> None:
    node = claims().nodes[0]
    assert set(slots_of([node.keys.epoch]).tolist()) == {7000}


def test_masks_are_the_slots() -> None:
    assert slot_mask("0-2,5-5") == 0b100111
    assert slot_mask(f"0-{SLOTS - 1}") == 2**SLOTS - 1


@pytest.mark.parametrize(
    ("recorded", "is_covered"),
    [
        (Ownership("a", 3, "0-100"), True),
        (Ownership("a", 3, "0-200"), True),
        (Ownership("a", 3, "0-99"), False),
        (Ownership("a", 2, "0-100"), False),
        (Ownership("b", 9, "0-100"), True),
        (Ownership("b", 9, "50-100"), False),
        (None, False),
    ],
)
def test_a_record_covers_what_its_node_or_its_predecessor_had_all_the_time(
    recorded: Ownership | None, is_covered: bool
) -> None:
    assert Ownership("a", 3, "0-100").is_covered_by(recorded) == is_covered
