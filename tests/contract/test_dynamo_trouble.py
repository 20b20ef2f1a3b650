"""The warm tier in trouble, on a moto server behind a proxy: throttling, lost answers, deadlines, and what people are told."""

import json
import threading
import time

import boto3
import pytest

from featurestore.errors import FeatureStoreError, FenceRefused, InvalidInput, StoreUnavailable
from featurestore.online.batch import prepare_batch
from featurestore.online.dynamo.fill import fill_items
from featurestore.online.dynamo.items import Place, offers_of
from featurestore.online.dynamo.requests import Requests
from featurestore.online.dynamo.tier import DynamoTier
from featurestore.online.dynamo.url import parse_url
from featurestore.online.tier import Fill
from tests.contract import dynamo
from tests.contract.dynamo import Answer
from tests.contract.dynamo_tables import STATE, WEEK, Table, filling, read, values, write
from tests.contract.online_rows import (
    GROUP,
    NOW,
    clock,
    key_of,
    messages_of,
    plain,
)
from tests.contract.receivers import closed_port

# Trouble


def test_throttled_requests_are_tried_again_within_the_time(dynamo_table: Table) -> None:
    tier, part, epoch = dynamo_table.filled([1])
    codes = ["ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded"]
    dynamo_table.proxy.fail(*(Answer.error(code) for code in codes), Answer.error("InternalServerError", 500))
    assert values(read(tier, [1])) == [5]
    assert len(dynamo_table.proxy.requests) == 5
    dynamo_table.proxy.fail(*(Answer.error(code) for code in codes), operation="PutItem")
    assert write(part, epoch, [2]).written == 1
    assert values(read(tier, [2])) == [5]


def test_a_table_that_keeps_throttling_leaves_keys_unanswered_and_refuses_writes(dynamo_table: Table) -> None:
    tier, part, epoch = dynamo_table.filled([1])
    throttled = Answer.error("ThrottlingException")
    dynamo_table.proxy.faults.extend([lambda *_: throttled] * 400)
    replies = read(tier, [1, 2], timeout_seconds=60)
    assert (replies.unanswered, replies.has_failed) == ({0, 1}, True)
    assert "throttles" in replies.cause
    with pytest.raises(StoreUnavailable, match="throttles"):
        write(part, epoch, [1])
    assert dynamo_table.proxy.faults


def test_a_slow_table_costs_no_more_than_the_callers_time_and_only_its_own_keys(dynamo_table: Table) -> None:
    tier, _, _ = dynamo_table.filled(list(range(150)))

    is_over = threading.Event()

    def hold_first(operation: str, body: bytes) -> Answer | None:
        if b'"S": "0"' not in body and b'"S":"0"' not in body:
            return None
        is_over.wait(60)
        return Answer()

    dynamo_table.proxy.faults.append(hold_first)
    dynamo_table.time.is_running = True
    began = time.monotonic()
    replies = read(tier, list(range(150)), timeout_seconds=3.0)
    took = time.monotonic() - began
    is_over.set()
    assert 3.0 <= took < 15
    assert replies.unanswered == set(range(100))
    assert values(replies) == [None] * 100 + [5] * 50
    assert "did not answer in time" in replies.cause


def test_a_put_whose_answer_was_lost_is_sent_again_and_decided_anew(dynamo_table: Table) -> None:
    tier, part, epoch = dynamo_table.filled([1])
    dynamo_table.proxy.fail(Answer(is_lost=True), operation="PutItem")
    write(part, epoch, [1], 8)
    assert dynamo_table.proxy.operations().count("PutItem") == 2
    assert values(read(tier, [1])) == [8]


def test_a_fill_goes_in_batches_of_25_and_what_was_not_taken_is_sent_again(dynamo_table: Table) -> None:
    tier, part, epoch = dynamo_table.filled([])
    after = filling(part, epoch)
    dynamo_table.proxy.requests.clear()

    def take_none(operation: str, body: bytes) -> Answer | None:
        if operation != "BatchWriteItem":
            return None
        return Answer(200, {"UnprocessedItems": json.loads(body)["RequestItems"]})

    dynamo_table.proxy.faults.append(take_none)
    dynamo_table.proxy.fail(Answer.error("ThrottlingException"), operation="BatchWriteItem")
    keys = [key_of(n % 60) for n in range(70)]
    part.fill(GROUP, keys, messages_of([plain(n) for n in range(70)]), epoch=after, ttl=WEEK, owner="one")
    sizes = [
        len(body["RequestItems"][dynamo_table.name])
        for said, body in dynamo_table.proxy.requests
        if said == "BatchWriteItem"
    ]
    assert max(sizes) == 25
    assert len(sizes) == 5
    part.set_state(GROUP, STATE, epoch=after, is_rebuild=True)
    assert values(read(tier, list(range(61)))) == [*range(60, 70), *range(10, 60), None]


def test_a_fill_of_which_a_batch_was_lost_is_never_served(dynamo_table: Table) -> None:
    """Nothing can call the batch back: it may be written after a newer value, and looks at nothing."""
    _, part, epoch = dynamo_table.filled([])
    after = filling(part, epoch)
    dynamo_table.proxy.fail(Answer(is_lost=True), operation="BatchWriteItem")
    arguments = (GROUP, [key_of(1)], messages_of([plain(1)]))
    with pytest.raises(StoreUnavailable):
        part.fill(*arguments, epoch=after, ttl=None, owner="one")
    assert dynamo_table.proxy.operations().count("BatchWriteItem") == 1
    with pytest.raises(FenceRefused, match="Start over"):
        part.fill(*arguments, epoch=after, ttl=None, owner="one")
    with pytest.raises(FenceRefused, match="Start over"):
        part.set_state(GROUP, STATE, epoch=after, is_rebuild=True)
    again = filling(part, after)
    part.fill(*arguments, epoch=again, ttl=None, owner="one")
    part.set_state(GROUP, STATE, epoch=again, is_rebuild=True)


def test_a_batch_of_an_earlier_fill_that_comes_late_reaches_no_reader(dynamo_table: Table) -> None:
    tier, part, epoch = dynamo_table.filled([])
    before = filling(part, epoch)
    after = filling(part, before)
    part.fill(GROUP, [key_of(1)], messages_of([plain(7)]), epoch=after, ttl=None, owner="one")
    part.set_state(GROUP, STATE, epoch=after, is_rebuild=True)
    batch = prepare_batch(GROUP, [key_of(1), key_of(2)], messages_of([plain(1)] * 2), None, None, NOW, WEEK)
    requests = Requests(parse_url(dynamo.url_of(dynamo_table.endpoint, dynamo_table.name)), dynamo.session())
    fill_items(requests, offers_of(Place(GROUP, int(before)), batch, 0))
    requests.close()
    assert values(read(tier, [1, 2])) == [7, None]


def test_another_owner_of_a_fill_starts_over_and_a_generation_in_use_is_not_filled(dynamo_table: Table) -> None:
    _, part, epoch = dynamo_table.filled([1])
    with pytest.raises(FenceRefused, match="Start over"):
        part.record_fill(GROUP, Fill(STATE, 2, 0, "one"), epoch=epoch, previous=None)
    after = filling(part, epoch)
    with pytest.raises(FenceRefused, match="Start over"):
        part.record_fill(GROUP, Fill(STATE, 2, 1, "two"), epoch=after, previous="one")
    part.record_fill(GROUP, Fill(STATE, 2, 1, "one"), epoch=after, previous="one")
    assert part.fill_under_way(GROUP) == Fill(STATE, 2, 1, "one")


def test_a_group_started_over_while_it_was_written_tells_the_writer(dynamo_table: Table) -> None:
    tier, part, epoch = dynamo_table.filled([1])
    other = dynamo_table.tier().parts()[0]

    def start_over_meanwhile(operation: str, body: bytes) -> Answer | None:
        if operation != "PutItem" or b'"m"' not in body:
            return None
        other.start_over(GROUP, epoch=epoch)
        return Answer()

    dynamo_table.proxy.faults.append(start_over_meanwhile)
    with pytest.raises(FenceRefused, match="counts for nobody"):
        write(part, epoch, [1], 9)
    assert read(tier, [1]).unanswered == {0}


# What people are told


def causes(url: str, session: boto3.Session | None = None) -> tuple[str, str]:
    """What a write and a read say."""
    tier = DynamoTier(url, clock, session=session or dynamo.session(), sleep=lambda _: None)
    with pytest.raises(FeatureStoreError) as raised:
        tier.parts()[0].ensure_epoch(GROUP)
    replies = tier.read_many({GROUP: [key_of(1)]}, timeout_seconds=5)[GROUP]
    tier.close()
    assert replies.unanswered == {0}
    return f"{type(raised.value).__name__}: {raised.value}", replies.cause


def test_a_missing_table_says_how_to_make_it(moto_endpoint: str) -> None:
    for said in causes(dynamo.url_of(moto_endpoint, "nobody-made-this")):
        assert "There is no DynamoDB table 'nobody-made-this'" in said
        assert "featurestore online provision" in said


def test_missing_credentials_and_regions_are_named(moto_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for said in causes(dynamo.url_of(moto_endpoint, "table"), boto3.Session()):
        assert "No AWS credentials were found" in said
    written, _ = causes("dynamodb://table", boto3.Session("AKIAKEY", "hidden"))
    assert "InvalidInput" in written
    assert "region=" in written
    assert "hidden" not in written
    with pytest.raises(InvalidInput, match="profile"):
        DynamoTier("dynamodb://table?profile=nobody", clock).parts()[0].ensure_epoch(GROUP)


def test_refused_credentials_and_an_absent_server_are_told_apart_and_nothing_is_quoted(dynamo_table: Table) -> None:
    dynamo_table.proxy.faults.extend(
        [lambda *_: Answer(400, {"__type": "x#InvalidSignatureException", "message": "s3cret"})] * 2
    )
    for said in causes(dynamo.url_of(dynamo_table.proxy.endpoint, dynamo_table.name)):
        assert "refuses the credentials" in said
        assert "s3cret" not in said
    with closed_port() as port:
        url, time_of = dynamo.url_of(f"http://127.0.0.1:{port}", "table"), dynamo_table.time
        tier = DynamoTier(url, clock, session=dynamo.session(), monotonic=time_of.now, sleep=time_of.wait)
        replies = tier.read_many({GROUP: [key_of(1)]}, timeout_seconds=60)[GROUP]
        tier.close()
    assert "does not answer" in replies.cause
