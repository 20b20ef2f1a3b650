"""What is DynamoDB's own about the warm tier, on a moto server: keys and items, batches of reads, records.

What it shares with every tier is in `test_tier_contract`; failures are in `test_dynamo_trouble`.
"""

import json
import sys
import threading
import time
from types import ModuleType
from typing import Any

import pytest
from botocore.exceptions import NoRegionError
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.errors import FenceRefused, InvalidInput
from featurestore.online.batch import prepare_batch
from featurestore.online.dynamo.items import Place, message_of, offers_of
from featurestore.online.dynamo.part import DynamoPart
from featurestore.online.dynamo.tier import DynamoTier
from featurestore.online.dynamo.url import parse_url
from featurestore.online.keys import entity_id, online_keys
from featurestore.online.stores import OnlineStores
from featurestore.online.tier import Replies
from featurestore.settings import Settings
from tests.contract import dynamo
from tests.contract.dynamo import Answer, Proxy
from tests.contract.dynamo_tables import AHEAD, LOWEST, STATE, WEEK, Table, read, values, write
from tests.contract.online_rows import (
    GROUP,
    NOW,
    Version,
    clock,
    key_of,
    messages_of,
    plain,
    removed_frame,
)
from tests.scale import cases

# Opening


class CountedSession:
    """A session whose clients cannot be used, or not even be made."""

    def __init__(self, error: Exception | None = None) -> None:
        self.made, self.error = 0, error

    def client(self, *_: Any, **__: Any) -> object:
        if self.error is not None:
            raise self.error
        self.made += 1
        return object()


def test_opening_makes_the_client_of_reads_once_and_sends_nothing() -> None:
    session = CountedSession()
    tier = DynamoTier(dynamo.url_of("http://127.0.0.1:1", "table"), clock, session=session)
    assert session.made == 0
    tier.open()
    tier.open()
    assert session.made == 1


def test_a_client_that_cannot_be_made_is_told_by_the_first_request_and_not_by_opening() -> None:
    tier = DynamoTier("dynamodb://table", clock, session=CountedSession(NoRegionError()))
    tier.open()
    with pytest.raises(InvalidInput, match="region"):
        tier.parts()[0].state(GROUP)


def test_whoever_asks_for_the_warm_tier_gets_it_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """So what reads wait for is the table, and not the making of a client, which takes longer than their deadline."""
    opened: list[DynamoTier] = []

    def noted(tier: DynamoTier) -> None:
        opened.append(tier)

    monkeypatch.setattr(DynamoTier, "open", noted)
    url = dynamo.url_of("http://127.0.0.1:1", "table")
    stores = OnlineStores(
        Settings.from_env({"FEATURESTORE_WARM_URL": url}), clock, lambda _: pytest.fail("no group is read")
    )
    assert [stores.warm, stores.warm] == [opened[0]] * 2
    assert len(opened) == 1


# Items


ENTITIES = st.lists(st.text(max_size=6) | st.integers(-99, 99) | st.booleans(), min_size=1, max_size=2)
GROUPS = st.sampled_from(["a", "a_b", "a_v2", "a_v12", "a_b_v2", "ab"])


@settings(max_examples=cases(3_000, 60), deadline=None)
@given(st.lists(st.tuples(GROUPS, ENTITIES), min_size=2, max_size=40))
def test_distinct_entities_of_distinct_groups_never_share_an_item(pairs: list[tuple[str, list[object]]]) -> None:
    ids = {(group, entity_id(values)) for group, values in pairs}
    keys = {Place(group, 7).item_key(online_keys(group, [one])[0]) for group, one in ids}
    assert len(keys) == len(ids)
    assert all(partition and sort for partition, sort in keys)


TIMES = st.integers(-(2**40), 2**40) | st.integers(-3, 3)
VERSIONS = st.tuples(TIMES, TIMES, TIMES)


@settings(max_examples=cases(3_000, 60), deadline=None)
@given(st.lists(VERSIONS, min_size=2, max_size=8))
def test_the_version_attribute_compares_as_versions_do(versions: list[Version]) -> None:
    bounded = [tuple(max(min(part, 0), LOWEST[0]) for part in version) for version in versions]
    batch = prepare_batch("g", [b"g:1"] * len(bounded), messages_of(bounded), None, None, NOW, WEEK)  # type: ignore[arg-type]
    offers = offers_of(Place("g", 1), batch, 0)
    pairs = sorted(zip(bounded, (offer.version for offer in offers), strict=True), key=lambda pair: pair[0])
    assert sorted(version for _, version in pairs) == [version for _, version in pairs]
    assert len({version for _, version in pairs}) == len(set(bounded))
    assert all(len(version) == 24 for _, version in pairs)


def test_awkward_ids_come_back_from_the_server(dynamo_table: Table) -> None:
    tier, part, epoch = dynamo_table.filled([])
    ids = ["", "%", "@state:x", "a:b", "a|b", "{x}", "é\U0001f600", "x" * 2048, "é" * 1024]
    keys = online_keys(GROUP, [entity_id([one]) for one in ids[:-2]] + ids[-2:])
    part.write(GROUP, keys, messages_of([plain(n) for n in range(len(keys))]), epoch=epoch, ttl=None)
    assert values(tier.read_many({GROUP: keys})[GROUP]) == list(range(len(keys)))


def test_an_item_has_the_attributes_that_are_documented(dynamo_table: Table) -> None:
    _, part, epoch = dynamo_table.filled([])
    before = time.time()
    part.write(GROUP, [key_of(1)], messages_of([plain(3600)], fence=3), epoch=epoch, ttl=WEEK)
    after = time.time()
    items = {item["entity_id"]["S"]: item for item in dynamo.items_of(dynamo_table.endpoint, dynamo_table.name)}
    item = items["1"]
    assert item["feature_group#version"] == {"S": f"{GROUP}#1.{epoch}"}
    assert set(item) == {"entity_id", "feature_group#version", "v", "f", "m", "x"}
    assert before + 3650 < float(item["x"]["N"]) < after + 3670
    assert int(epoch) > NOW.timestamp() * 1e6
    assert items[f"@state:{GROUP}"]["generation"] == {"N": epoch}


def test_a_message_carries_the_fence_of_its_item() -> None:
    (lower, higher) = (messages_of([plain(4)], fence)[0] for fence in (2, 9))
    assert message_of({"m": {"B": lower}, "f": {"N": "9"}}) == higher
    assert message_of({"m": {"B": lower}, "f": {"N": "2"}}) == lower
    assert message_of({"entity_id": {"S": "1"}}) is None


def test_what_dynamodb_cannot_hold_is_refused_before_anything_is_sent(dynamo_table: Table) -> None:
    tier, part, epoch = dynamo_table.filled([])
    long_key = online_keys(GROUP, ["é" * 1025])
    with pytest.raises(InvalidInput, match="takes 2050 bytes"):
        part.write(GROUP, [key_of(1), *long_key], messages_of([plain(1)] * 2), epoch=epoch, ttl=None)
    assert tier.read_many({GROUP: long_key})[GROUP] == Replies([None], state=STATE)
    large = messages_of([plain(1)])[0] + bytes(410_000)
    with pytest.raises(InvalidInput, match="a DynamoDB item holds"):
        part.write(GROUP, [key_of(1)], [large], epoch=epoch, ttl=None)
    with pytest.raises(InvalidInput, match="is not of group"):
        tier.read_many({GROUP: [b"other:1"]})
    assert read(tier, [1]).messages == [None]


def test_more_removed_versions_than_one_condition_takes_give_way_too(dynamo_table: Table) -> None:
    tier, part, epoch = dynamo_table.filled([])
    for number, stored in ((1, 10), (2, 150), (3, 300)):
        write(part, epoch, [number], stored)
    gone = [(key_of(n), plain(version)) for n in (1, 2, 3) for version in range(5, 205)]
    result = write(part, epoch, [1, 2, 3], 3, fence=6, removed=removed_frame(*zip(*gone, strict=True)))
    assert (result.written, result.left) == (2, 1)
    assert values(read(tier, [1, 2, 3])) == [3, 3, 300]


def test_of_doubled_keys_in_one_write_the_last_has_the_last_word(dynamo_table: Table) -> None:
    tier, part, epoch = dynamo_table.filled([])
    write(part, epoch, [1], 7)
    keys, removed = [key_of(1), key_of(1)], removed_frame([key_of(1)], [plain(7)])
    result = part.write(GROUP, keys, messages_of([plain(5), plain(2)], fence=1), epoch=epoch, ttl=None, removed=removed)
    assert (result.written, result.left) == (1, 1)
    assert values(read(tier, [1])) == [2]


# Batches of reads


def test_one_read_asks_for_every_key_once_and_a_hundred_at_a_time(dynamo_table: Table) -> None:
    tier, part, _ = dynamo_table.filled(list(range(30)))
    other = part.ensure_epoch("other")
    part.set_state("other", STATE, epoch=other, is_rebuild=True)
    tier.read_many({"other": []})
    dynamo_table.proxy.requests.clear()
    wanted = [*range(220), *range(30), *range(30)]
    found = tier.read_many({GROUP: [key_of(n) for n in wanted], "other": [b"other:1", b"other:1"]})
    assert values(found[GROUP]) == [5 if n < 30 else None for n in wanted]
    assert found["other"] == Replies([None, None], state=STATE)
    asked = [body["RequestItems"][dynamo_table.name] for _, body in dynamo_table.proxy.requests]
    assert sorted(len(one["Keys"]) for one in asked) == [21, 100, 100]
    assert all(one["ConsistentRead"] for one in asked)


def test_keys_that_were_not_processed_are_asked_for_again(dynamo_table: Table) -> None:
    tier, _, _ = dynamo_table.filled([1, 2, 3])

    def nothing_yet(operation: str, body: bytes) -> Answer | None:
        asked = json.loads(body)["RequestItems"]
        return Answer(200, {"Responses": {dynamo_table.name: []}, "UnprocessedKeys": asked})

    dynamo_table.proxy.faults += [nothing_yet, nothing_yet]
    assert values(read(tier, [1, 2, 3, 4])) == [5, 5, 5, None]
    assert dynamo_table.proxy.operations() == ["BatchGetItem"] * 3


@pytest.mark.exam
def test_a_batch_larger_than_an_answer_may_be_comes_in_several(dynamodb_local_endpoint: str) -> None:
    with Proxy(dynamodb_local_endpoint) as proxy:
        table = Table(dynamodb_local_endpoint, proxy)
        tier, part, epoch = table.filled([])
        large = [message + bytes(380_000) for message in messages_of([plain(n) for n in range(60)])]
        keys = [key_of(n) for n in range(60)]
        part.write(GROUP, keys, large, epoch=epoch, ttl=None)
        proxy.requests.clear()
        assert read(tier, list(range(60)), 60).messages == large
        assert len(proxy.requests) >= 2
        tier.close()


# Records


def test_readers_keep_a_record_for_a_second_and_not_longer(dynamo_table: Table) -> None:
    reader, (_, part, epoch) = dynamo_table.tier(), dynamo_table.filled([1])
    assert values(read(reader, [1])) == [5]
    after = part.start_over(GROUP, epoch=epoch)
    assert values(read(reader, [1])) == [5]
    dynamo_table.time.wait(1.0)
    assert read(reader, [1]).unanswered == {0}
    part.set_state(GROUP, AHEAD, epoch=after, is_rebuild=True)
    assert read(reader, [1]).unanswered == {0}
    dynamo_table.time.wait(1.0)
    assert read(reader, [1]) == Replies([None], state=AHEAD)


def test_a_record_is_renewed_beside_the_values_and_a_read_claims_no_more_than_was_known_before(
    dynamo_table: Table,
) -> None:
    reader, (_, part, epoch) = dynamo_table.tier(), dynamo_table.filled([1])
    read(reader, [1])
    part.set_state(GROUP, AHEAD, epoch=epoch)
    dynamo_table.time.wait(1.0)
    dynamo_table.proxy.requests.clear()
    assert read(reader, [1]).state == STATE
    assert dynamo_table.proxy.operations() == ["BatchGetItem"] * 2
    assert read(reader, [1]).state == AHEAD
    assert len(dynamo_table.proxy.requests) == 3


def test_a_group_whose_record_cannot_be_renewed_is_unanswered(dynamo_table: Table) -> None:
    tier, _, _ = dynamo_table.filled([1])
    dynamo_table.time.wait(1.0)

    def refuse_records(operation: str, body: bytes) -> Answer | None:
        return Answer.error("AccessDeniedException") if b"@state:" in body else None

    dynamo_table.proxy.faults.append(refuse_records)
    replies = read(tier, [1])
    assert (replies.messages, replies.unanswered) == ([None], {0})
    assert "AccessDeniedException" in replies.cause
    assert values(read(tier, [1])) == [5]


def test_two_who_start_over_at_once_get_one_new_generation(dynamo_table: Table) -> None:
    _, part, epoch = dynamo_table.filled([1])
    others = [dynamo_table.tier().parts()[0] for _ in range(4)]
    began, refused = [], []

    def start_over(one: DynamoPart) -> None:
        try:
            began.append(one.start_over(GROUP, epoch=epoch))
        except FenceRefused:
            refused.append(one)

    threads = [threading.Thread(target=start_over, args=(one,)) for one in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(began) == 1
    assert len(refused) == 3
    assert part.ensure_epoch(GROUP) == began[0]
    assert int(began[0]) > int(epoch)


def test_a_change_of_a_record_whose_answer_was_lost_is_made_once(dynamo_table: Table) -> None:
    _, part, epoch = dynamo_table.filled([1])
    dynamo_table.proxy.fail(Answer(is_lost=True), operation="PutItem")
    after = part.start_over(GROUP, epoch=epoch)
    assert part.ensure_epoch(GROUP) == after != epoch
    dynamo_table.proxy.fail(Answer(is_lost=True), operation="PutItem")
    part.set_state(GROUP, STATE, epoch=after, is_rebuild=True)
    dynamo_table.proxy.fail(Answer(is_lost=True), operation="PutItem")
    part.set_state(GROUP, AHEAD, epoch=after)
    assert part.state(GROUP) == AHEAD


# Cheaper and faster reads


def test_eventual_reads_tell_no_state_so_that_nothing_is_repaired_from_them(dynamo_table: Table) -> None:
    dynamo_table.filled([1])
    replies = read(dynamo_table.tier(reads="eventual"), [1, 2])
    assert values(replies) == [5, None]
    assert (replies.unanswered, replies.state) == (frozenset(), None)
    asked = [body["RequestItems"][dynamo_table.name] for _, body in dynamo_table.proxy.requests]
    assert [one["ConsistentRead"] for one in asked] == [True, False]


def test_dax_answers_for_values_and_never_for_records(dynamo_table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    _, part, epoch = dynamo_table.filled([1])
    asked: list[dict[str, Any]] = []

    class Cluster:
        """In DAX's place: DynamoDB itself, which is told apart by who was asked."""

        def __init__(self, session: Any, **options: Any) -> None:
            assert options["endpoint_url"] == "dax://cluster:8111"

        def batch_get_item(self, **request: Any) -> Any:
            asked.append(request["RequestItems"][dynamo_table.name])
            return dynamo.client(dynamo_table.endpoint).batch_get_item(**request)

        def close(self) -> None:
            """Nothing is open."""

    library = ModuleType("amazondax")
    library.AmazonDaxClient = Cluster  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "amazondax", library)
    tier = dynamo_table.tier(dax="dax://cluster:8111")
    replies = read(tier, [1, 2])
    assert (values(replies), replies.unanswered, replies.state) == ([5, None], frozenset(), None)
    assert [(len(one["Keys"]), one["ConsistentRead"]) for one in asked] == [(2, False)]
    part.start_over(GROUP, epoch=epoch)
    dynamo_table.time.wait(1.0)
    assert read(tier, [1]).unanswered == {0}
    dynamo_table.time.wait(1.0)
    before = len(asked)
    assert read(tier, [1]).unanswered == {0}
    assert len(asked) == before, "DAX would remember that a cold group's keys are not there"


def test_dax_without_its_library_says_what_to_install(dynamo_table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    dynamo_table.filled([1])
    monkeypatch.setitem(sys.modules, "amazondax", None)
    replies = read(dynamo_table.tier(dax="daxs://cluster"), [1])
    assert replies.unanswered == {0}
    assert "featurestore[dax]" in replies.cause


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://localhost", "scheme: redis"),
        ("dynamodb://key:s3cret@table", "holds credentials"),
        *((f"dynamodb://key:12{mark}s3cret@table", "holds credentials") for mark in "/?#"),
        ("dynamodb://key:12?s3cret=1&s3cret@table?region=a", "holds credentials"),
        ("dynamodb://table?endpoint=https://user:1/s3cret@host", "hold no user"),
        ("dynamodb://t", "no name of a DynamoDB table"),
        ("dynamodb://table?role=arn:aws:iam::1:role/x", "through a profile"),
        ("dynamodb://table?max_connections=0", "max_connections='0'"),
        ("dynamodb://table?timeout_seconds=soon", "timeout_seconds='soon'"),
        ("dynamodb://table?reads=strongly", "neither 'strong' nor 'eventual'"),
        ("dynamodb://table?endpoint=localhost:8000", "http:// or https://"),
        ("dynamodb://table?dax=http://cluster", "dax:// or daxs://"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_and_shows_no_secret(url: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as raised:
        DynamoTier(url, clock)
    assert "key:12" not in str(raised.value)
    assert "s3cret" not in str(raised.value)


def test_an_address_says_everything_that_can_be_chosen() -> None:
    url = (
        "dynamodb://Warm.Table-1?region=eu-west-1&endpoint=https://vpce.example&max_connections=64&timeout_seconds=0.2"
    )
    address = parse_url(f"{url}&profile=serving&reads=eventual&dax=daxs://cluster:9111")
    assert (address.table, address.region, address.endpoint) == ("Warm.Table-1", "eu-west-1", "https://vpce.example")
    assert (address.max_connections, address.timeout_seconds, address.profile) == (64, 0.2, "serving")
    assert (address.reads, address.dax, address.is_consistent) == ("eventual", "daxs://cluster:9111", False)
    assert parse_url("dynamodb://table").is_consistent
