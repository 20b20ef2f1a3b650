"""Making and sweeping the table of a warm tier, from Python and from the command line, on a moto server."""

import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from featurestore.errors import InvalidInput, StoreUnavailable, UnknownName
from featurestore.online.dynamo import sweep as sweeping
from featurestore.online.dynamo.provision import Provisioned, provision
from featurestore.online.dynamo.sweep import SETTLE_SECONDS, sweep
from featurestore.online.dynamo.tier import DynamoTier
from featurestore.online.tier import MaterializationState
from tests.cli_project import Project
from tests.contract import dynamo
from tests.contract.dynamo import Answer, Proxy
from tests.contract.online_rows import GROUP, NOW, clock, decoded, key_of, messages_of, plain

STATE = MaterializationState("table-1", 4, NOW)


@pytest.fixture
def name() -> str:
    return f"provision-{uuid4().hex}"


@pytest.fixture
def url(moto_endpoint: str, name: str) -> str:
    return dynamo.url_of(moto_endpoint, name, max_connections=4, timeout_seconds=20)


def described(endpoint: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = dynamo.client(endpoint).describe_table(TableName=name)["Table"]
    return found


def test_provisioning_makes_an_on_demand_table_that_expires_items(url: str, moto_endpoint: str, name: str) -> None:
    done = provision(url, tags={"team": "flights"}, point_in_time_recovery=True, session=dynamo.session())
    assert done == Provisioned(name, True, "PAY_PER_REQUEST", "x", True)
    table, client = described(moto_endpoint, name), dynamo.client(moto_endpoint)
    assert [key["AttributeName"] for key in table["KeySchema"]] == ["entity_id", "feature_group#version"]
    expiry = client.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
    assert expiry == {"TimeToLiveStatus": "ENABLED", "AttributeName": "x"}
    assert client.list_tags_of_resource(ResourceArn=table["TableArn"])["Tags"] == [{"Key": "team", "Value": "flights"}]
    backups = client.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"]
    assert backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"


def test_provisioning_again_changes_nothing_and_keeps_what_is_stored(url: str, moto_endpoint: str, name: str) -> None:
    provision(url, session=dynamo.session())
    tier = DynamoTier(url, clock, session=dynamo.session())
    epoch = tier.parts()[0].ensure_epoch(GROUP)
    before = dynamo.items_of(moto_endpoint, name)
    assert provision(url, session=dynamo.session()) == Provisioned(name, False, "PAY_PER_REQUEST", "x", False)
    assert dynamo.items_of(moto_endpoint, name) == before
    assert tier.parts()[0].ensure_epoch(GROUP) == epoch
    tier.close()


def test_a_table_with_other_keys_or_another_expiry_is_refused(url: str, moto_endpoint: str, name: str) -> None:
    client = dynamo.client(moto_endpoint)
    client.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "N"}],
        BillingMode="PAY_PER_REQUEST",
    )
    with pytest.raises(InvalidInput, match=r"exists with keys id \(N\)"):
        provision(url, session=dynamo.session())
    with pytest.raises(InvalidInput, match="featurestore online provision"):
        DynamoTier(url, clock, session=dynamo.session()).parts()[0].ensure_epoch(GROUP)
    client.delete_table(TableName=name)
    provision(url, session=dynamo.session())
    wanted = [{"Enabled": False, "AttributeName": "x"}, {"Enabled": True, "AttributeName": "other"}]
    for specification in wanted:
        client.update_time_to_live(TableName=name, TimeToLiveSpecification=specification)
    with pytest.raises(InvalidInput, match="expires items by attribute 'other'"):
        provision(url, session=dynamo.session())


def test_provisioning_waits_until_the_table_is_active_and_gives_up_in_the_end(moto_endpoint: str, name: str) -> None:
    waited = [0.0]

    def wait(seconds: float) -> None:
        waited[0] += 30 * seconds

    def creating(operation: str, body: bytes) -> Answer | None:
        table = {"TableStatus": "CREATING", "TableName": name}
        return Answer(200, {"Table": table}) if operation == "DescribeTable" else None

    provision(dynamo.url_of(moto_endpoint, name), session=dynamo.session())
    with Proxy(moto_endpoint) as proxy:
        url = dynamo.url_of(proxy.endpoint, name)
        proxy.faults += [creating] * 3
        options = {"session": dynamo.session(), "sleep": wait, "monotonic": lambda: waited[0]}
        assert provision(url, **options) == Provisioned(name, False, "PAY_PER_REQUEST", "x", False)  # type: ignore[arg-type]
        assert proxy.operations().count("DescribeTable") == 4
        proxy.faults.extend([creating] * 100)
        with pytest.raises(StoreUnavailable, match="did not become active"):
            provision(url, **options)  # type: ignore[arg-type]


def test_a_sweep_removes_earlier_generations_once_no_reader_can_rely_on_them(
    url: str, moto_endpoint: str, name: str
) -> None:
    provision(url, session=dynamo.session())
    tier, waited = DynamoTier(url, clock, session=dynamo.session()), []
    (part,) = tier.parts()
    for group, numbers in ((GROUP, range(30)), (f"{GROUP}_v2", range(4)), (GROUP[:-1], range(4))):
        epoch = part.ensure_epoch(group)
        for version in (1, 2):
            epoch = part.start_over(group, epoch=epoch)
            keys = [key_of(n).replace(GROUP.encode(), group.encode()) for n in numbers]
            part.write(group, keys, messages_of([plain(version)] * len(keys)), epoch=epoch, ttl=None)
        part.set_state(group, STATE, epoch=epoch, is_rebuild=True)
    assert len(dynamo.items_of(moto_endpoint, name)) == 2 * 38 + 3
    swept = sweep(url, GROUP, session=dynamo.session(), sleep=waited.append)
    assert (swept.group, swept.removed, swept.generation) == (GROUP, 30, int(part.ensure_epoch(GROUP)))
    assert waited == [SETTLE_SECONDS]
    assert len(dynamo.items_of(moto_endpoint, name)) == 2 * 38 + 3 - 30
    replies = tier.read_many({GROUP: [key_of(n) for n in range(30)]})[GROUP]
    assert decoded(replies.messages)["v"].to_list() == [2] * 30
    assert sweep(url, GROUP, session=dynamo.session(), sleep=waited.append).removed == 0
    with pytest.raises(UnknownName, match="no record of group 'nobody'"):
        sweep(url, "nobody", session=dynamo.session(), sleep=waited.append)
    tier.close()


# The command line


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    credentials = dynamo.session().get_credentials()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", credentials.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", credentials.secret_key)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return Project(tmp_path)


def test_the_command_line_provisions_and_sweeps(
    project: Project, url: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = f"Table {name} was {{}}: active, billed by request, items expire.\n"
    assert project.run("online", "--warm-url", url, "provision", "--tag", "team=flights").stdout == made.format("made")
    monkeypatch.setenv("FEATURESTORE_WARM_URL", url)
    assert project.run("online", "provision").stdout == made.format("there already")
    assert project.json("online", "provision")["was_made"] is False
    tier = DynamoTier(url, clock, session=dynamo.session())
    epoch = tier.parts()[0].ensure_epoch(GROUP)
    tier.close()
    monkeypatch.setattr(sweeping, "SETTLE_SECONDS", 0.0)
    text = project.run("online", "sweep", GROUP).stdout
    assert text == f"Removed 0 items of earlier builds of {GROUP}; build {epoch} stays.\n"


def test_the_command_line_refuses_what_cannot_be_done(project: Project, url: str) -> None:
    assert "Set FEATURESTORE_WARM_URL" in project.run("online", "provision", exit_code=1).stderr
    assert "are no tags" in project.run("online", "--warm-url", url, "provision", "--tag", "x", exit_code=1).stderr
    missing = project.run("online", "--warm-url", url, "sweep", GROUP, exit_code=1).stderr
    assert "featurestore online provision" in missing
