"""The hot tier behind TLS and ACL users, and its secrets: no password in anything that people or logs may see."""

import datetime
import ipaddress
import re
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from featurestore.errors import FeatureStoreError, InvalidInput, StoreUnavailable
from featurestore.online.redis.connection import place_of, seeds_of
from featurestore.online.redis.hot import open_hot_tier
from featurestore.online.redis.valkey import HOST, EmbeddedValkey
from featurestore.online.tier import Fill, MaterializationState, Tier
from featurestore.ports import free_port
from tests.contract.online_rows import GROUP, NOW, clock, decoded, key_of, messages_of, plain
from tests.contract.tiers import Copy, redis_seven
from tests.contract.valkey_cluster import EmbeddedCluster

STATE = MaterializationState("table-1", 4, NOW)
KEYS = [key_of(number) for number in range(40)]
VALUES = [4, 4, 5, *[4] * (len(KEYS) - 4), 3]
SECRET = "hunter2"


def exercise(copy: Copy) -> None:
    """Everything that a reader, a writer and a materialization do."""
    copy.write(KEYS[:1], messages_of([plain(1)]))
    epochs = copy.start_over()
    for part in copy.parts:
        epoch = epochs[part.name]
        part.record_fill(GROUP, Fill(STATE, 1, 0, "me"), epoch=epoch, previous=None)
        assert part.fill_under_way(GROUP) == Fill(STATE, 1, 0, "me")
    copy.fill(KEYS, messages_of([plain(3)] * len(KEYS)), epochs=epochs, owner="me")
    copy.set_state(STATE, epochs, is_rebuild=True)
    copy.begin_step(STATE, epochs)
    copy.write(KEYS[:-1], messages_of([plain(4)] * (len(KEYS) - 1), fence=2), epochs=epochs, ttl=datetime.timedelta(7))
    copy.write(KEYS[:2], messages_of([plain(3)] * 2, fence=3), epochs=epochs, ttl=datetime.timedelta(7))
    copy.write(KEYS[2:3], messages_of([plain(5)], fence=3), epochs=epochs, ttl=datetime.timedelta(7))
    copy.set_state(STATE, epochs)
    assert copy.states() == [STATE] * len(copy.parts)
    replies = copy.read([*KEYS, key_of(-1)])
    assert decoded(replies.messages)["v"].to_list() == [*VALUES, None]
    assert not replies.unanswered
    positions = [mark.positions for mark in replies.marks]
    assert positions == [[len(KEYS)]]
    assert copy.repair(replies.marks, [*KEYS, key_of(-1)], messages_of([plain(1)] * (len(KEYS) + 1))) == 1


# TLS


@dataclass(frozen=True)
class Certificates:
    """An authority, and what it signed for the server and for a client."""

    folder: Path

    def query(self, *, with_client: bool = True) -> str:
        own = f"&ssl_certfile={self.folder}/client.pem&ssl_keyfile={self.folder}/client.key" if with_client else ""
        return f"ssl_ca_certs={self.folder}/ca.pem{own}"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    authority = ec.generate_private_key(ec.SECP256R1())
    write_certificate(folder / "ca", authority, authority, "authority")
    for name in ("server", "client"):
        write_certificate(folder / name, ec.generate_private_key(ec.SECP256R1()), authority, name)
    return Certificates(folder)


def write_certificate(
    path: Path, key: ec.EllipticCurvePrivateKey, authority: ec.EllipticCurvePrivateKey, name: str
) -> None:
    """A key and its certificate, valid for this machine, signed by the authority."""
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
    address = x509.IPAddress(ipaddress.ip_address(HOST))
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=36_500))
        .add_extension(x509.BasicConstraints(ca=key is authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(authority, hashes.SHA256())
    )
    path.with_suffix(".pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.with_suffix(".key").write_bytes(secret)


@pytest.fixture(scope="module")
def tls_port(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[int]:
    """Of a server that asks its clients for certificates."""
    port = free_port()
    options = tls_options(certificates, port)
    with EmbeddedValkey(tmp_path_factory.mktemp("tls"), binary=redis_seven(), options=options):
        yield port


def tls_options(certificates: Certificates, port: int) -> dict[str, str]:
    return {
        "tls-port": str(port),
        "tls-ca-cert-file": f"{certificates.folder}/ca.pem",
        "tls-cert-file": f"{certificates.folder}/server.pem",
        "tls-key-file": f"{certificates.folder}/server.key",
        "tls-auth-clients": "yes",
        "tls-cluster": "yes",
    }


def test_a_server_behind_tls_is_used_like_any_other(tls_port: int, certificates: Certificates) -> None:
    tier = open_hot_tier(f"rediss://{HOST}:{tls_port}/0?{certificates.query()}&socket_timeout=5", clock)
    exercise(Copy(tier, GROUP))
    long = [f"{GROUP}:{number}".encode() for number in range(5000)]
    assert len(tier.read_many({GROUP: long}, timeout_seconds=5.0)[GROUP].messages) == 5000
    tier.close()


def test_without_our_authority_or_a_client_certificate_nothing_is_said(
    tls_port: int, certificates: Certificates
) -> None:
    for query in ("", certificates.query(with_client=False)):
        tier = open_hot_tier(f"rediss://{HOST}:{tls_port}/0?{query}", clock)
        replies = tier.read_many({GROUP: KEYS})[GROUP]
        assert replies.unanswered == set(range(len(KEYS)))
        assert f"Redis at {HOST}:{tls_port} does not answer" in replies.cause
        with pytest.raises(StoreUnavailable, match="does not answer"):
            tier.parts()[0].ensure_epoch(GROUP)
        tier.close()


def test_a_cluster_behind_tls_is_found_through_one_of_its_nodes(tmp_path: Path, certificates: Certificates) -> None:
    ports = [free_port() for _ in range(3)]
    options = [tls_options(certificates, port) for port in ports]
    with EmbeddedCluster(tmp_path, binary=redis_seven(), options=options):
        tier = open_hot_tier(f"rediss+cluster://{HOST}:{ports[0]}?{certificates.query()}&socket_timeout=5", clock)
        assert {part.name for part in tier.parts()} == {f"hot {HOST}:{port}" for port in ports}
        exercise(Copy(tier, GROUP))
        tier.close()


# ACL users


def rights(*, is_cluster: bool = False, is_reader: bool = False, is_quick: bool = False) -> list[str]:
    """The rights that the documentation gives, as words of ACL SETUSER."""
    said = (Path(__file__).parents[2] / "docs" / "online.md").read_text()
    start = "ACL SETUSER reader" if is_reader else "ACL SETUSER featurestore"
    lines = said[said.index(start) :].split("```")[0].splitlines()
    lines = [line for line in lines if is_cluster or "(in a cluster)" not in line]
    lines = [line for line in lines if is_quick or "may be left out" not in line]
    return [word for line in lines for word in re.sub(r"\(.*\)", "", line).split()][3:]


@pytest.fixture
def acl_server(valkey_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(valkey_url) as client:
        client.flushall()
        client.script_flush()
        yield client
        client.acl_deluser("featurestore", "reader")


def let(client: redis.Redis, user: str, words: list[str]) -> None:
    client.execute_command("ACL", "SETUSER", user, "reset", *words)  # type: ignore[no-untyped-call]


def as_user(url: str, user: str, password: str = "password") -> str:
    return url.replace("://", f"://{user}:{password}@")


@pytest.mark.parametrize("is_quick", [False, True])
def test_the_rights_of_the_documentation_are_enough(acl_server: redis.Redis, valkey_url: str, is_quick: bool) -> None:
    let(acl_server, "featurestore", rights(is_quick=is_quick))
    tier = open_hot_tier(as_user(valkey_url, "featurestore"), clock)
    exercise(Copy(tier, GROUP))
    tier.close()


def test_they_are_enough_in_a_cluster(valkey_cluster: EmbeddedCluster) -> None:
    clients = [valkey_cluster.client(number) for number in range(3)]
    for client in clients:
        client.flushall()
        client.script_flush()
        let(client, "featurestore", rights(is_cluster=True))
        let(client, "reader", rights(is_cluster=True, is_reader=True))
    tier = open_hot_tier(as_user(valkey_cluster.url, "featurestore"), clock)
    exercise(Copy(tier, GROUP))
    reader = open_hot_tier(as_user(valkey_cluster.url, "reader"), clock)
    assert not reader.read_many({GROUP: KEYS})[GROUP].unanswered
    with pytest.raises(StoreUnavailable, match="does not allow"):
        reader.parts()[0].ensure_epoch(GROUP)
    for tier_ in (tier, reader):
        tier_.close()
    for client in clients:
        client.acl_deluser("featurestore", "reader")


def test_none_of_them_is_too_much(acl_server: redis.Redis, valkey_url: str) -> None:
    """Without any one of them something is refused, and it says so."""
    needed = [word for word in rights() if word.startswith("+")]
    assert len(needed) > 8
    for word in needed:
        acl_server.flushall()
        acl_server.script_flush()
        let(acl_server, "featurestore", [one for one in rights() if one != word])
        tier = open_hot_tier(as_user(valkey_url, "featurestore"), clock)
        assert "does not allow this user" in refusal(tier), word
        tier.close()


def refusal(tier: Tier) -> str:
    """Why something does not work; reads do not raise it, they have it as a cause."""
    try:
        exercise(Copy(tier, GROUP))
    except StoreUnavailable as error:
        return str(error)
    except AssertionError:
        return tier.read_many({GROUP: KEYS})[GROUP].cause
    return ""


def test_a_reader_reads_and_writes_nothing(acl_server: redis.Redis, valkey_url: str) -> None:
    exercise(Copy(open_hot_tier(valkey_url, clock), GROUP))
    let(acl_server, "reader", rights(is_reader=True))
    tier = open_hot_tier(as_user(valkey_url, "reader"), clock)
    replies = tier.read_many({GROUP: [*KEYS, key_of(-2)]})[GROUP]
    assert decoded(replies.messages)["v"].to_list() == [*VALUES, None]
    with pytest.raises(StoreUnavailable, match="does not allow this user"):
        tier.parts()[0].ensure_epoch(GROUP)
    assert tier.repair(GROUP, replies.marks[0], [key_of(-2)], messages_of([plain(1)]), None) == 0
    tier.close()


def test_a_wrong_password_is_said_and_not_shown(acl_server: redis.Redis, valkey_url: str) -> None:
    let(acl_server, "reader", rights(is_reader=True))
    tier = open_hot_tier(as_user(valkey_url, "reader", SECRET), clock)
    replies = tier.read_many({GROUP: KEYS})[GROUP]
    assert "refuses the credentials" in replies.cause
    with pytest.raises(StoreUnavailable, match="refuses the credentials") as caught:
        tier.parts()[0].ensure_epoch(GROUP)
    shown = "".join(traceback.format_exception(caught.value))
    assert SECRET not in shown + replies.cause
    tier.close()


# Secrets


@pytest.mark.parametrize(
    "url",
    [
        f"redis://user:{SECRET}@127.0.0.1:1/0",
        f"redis://:{SECRET}@127.0.0.1:1",
        f"unix://user:{SECRET}@/nowhere/socket",
        f"redis+cluster://user:{SECRET}@127.0.0.1:1,127.0.0.1:2",
        f"rediss://127.0.0.1:1/0?password={SECRET}",
    ],
)
def test_no_password_is_in_what_people_see(url: str) -> None:
    shown = ""
    try:
        tier = open_hot_tier(url, clock)
        shown += repr(tier) + str(vars(tier)) + tier.read_many({GROUP: KEYS})[GROUP].cause
        tier.parts()[0].ensure_epoch(GROUP)
    except FeatureStoreError as error:
        shown += "".join(traceback.format_exception(error)) + repr(error)
    assert "127.0.0.1:1" in shown or "/nowhere/socket" in shown
    assert SECRET not in shown


@pytest.mark.parametrize(
    "url",
    [
        f"redis://127.0.0.1:1/0?ssl_password={SECRET}",
        f"redis://user:{SECRET}/x@127.0.0.1:1/0",
        f"redis://user:{SECRET}@127.0.0.1:port/0",
        f"http://user:{SECRET}@a",
        *(f"redis://user:1234{mark}{SECRET}@127.0.0.1:1/0" for mark in "/?#"),
        *(f"redis://user:{SECRET}@12{mark}{SECRET}@127.0.0.1:1/0" for mark in "/?#"),
        f"redis://{SECRET}/x@127.0.0.1:1/0",
        f"rediss://user:12/{SECRET}@127.0.0.1:1,127.0.0.1:2/0",
        f"rediss://user:1,2/{SECRET}@127.0.0.1:1",
        *(f"unix://user:12{mark}{SECRET}@/nowhere/socket" for mark in "/?#"),
        f"unix://{SECRET}/nowhere",
    ],
)
def test_an_unreadable_address_shows_nothing_of_itself(url: str) -> None:
    for open_it in (place_of, seeds_of):
        with pytest.raises(InvalidInput) as caught:
            open_it(url.replace("://", "+cluster://") if open_it is seeds_of else url)
        assert SECRET not in "".join(traceback.format_exception(caught.value))
        assert "is not readable" in str(caught.value) or "has settings" in str(caught.value)


def test_a_socket_may_have_an_at_sign_where_no_user_stands_before_it() -> None:
    assert place_of("unix:///run/valkey@1/a.sock?db=0").address == "/run/valkey@1/a.sock"
    assert place_of("unix://me:pass@/run/valkey%401/a.sock").address == "/run/valkey@1/a.sock"
