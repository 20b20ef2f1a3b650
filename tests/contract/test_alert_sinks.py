"""One suite over every sink, with real servers: what is taken, what comes later, what is refused, and that no secret is ever shown."""

import json
import logging
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest

from featurestore.alerts.notice import Notice
from featurestore.alerts.settings import (
    AlertmanagerSettings,
    EmailSettings,
    SinkSettings,
    SlackSettings,
    WebhookSettings,
)
from featurestore.alerts.sinks import email, http
from featurestore.alerts.sinks.sink import Sink, sink_of
from featurestore.errors import AlertRefused, FeatureStoreError, InvalidInput, SinkUnavailable
from tests.alert_problems import BLAMED, GROUPS, HOUR, MINUTE, T0, notice
from tests.contract.receivers import HttpReceiver, MailServer, closed_port, http_receiver, mail_server, silent_port

SECRET = "T00/hooksecretpath"
TOKEN = "tokenvaluethatissecret"
NOW = T0 + HOUR


@dataclass
class Place:
    """A sink with its server: how to make the server answer, and the ids of what it has taken."""

    sink: Sink
    settings: SinkSettings
    fail: Callable[[str], None]
    taken: Callable[[], list[str]]


HTTP_CODES = {"later": 503, "busy": 429, "refused": 404}
SMTP_CODES = {"later": "451 greylisted", "busy": "421 too many", "refused": "554 no spam"}
HTTP_KINDS: dict[str, tuple[SinkSettings, Callable[[Any], list[str]]]] = {
    "slack": (SlackSettings("ALERT_URL"), lambda document: [block["text"]["text"] for block in document["blocks"][1:]]),
    "webhook": (WebhookSettings(url_env="ALERT_URL", token_env="ALERT_TOKEN"), lambda document: [document["title"]]),
    "alertmanager": (
        AlertmanagerSettings(url_env="ALERT_URL", token_env="ALERT_TOKEN"),
        lambda document: [alert["annotations"]["summary"] for alert in document],
    ),
}


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpReceiver]:
    with http_receiver() as running:
        monkeypatch.setenv("ALERT_URL", f"{running.url}/{SECRET}")
        monkeypatch.setenv("ALERT_TOKEN", TOKEN)
        yield running


@pytest.fixture
def mail(monkeypatch: pytest.MonkeyPatch) -> Iterator[MailServer]:
    with mail_server() as running:
        yield running


def email_settings(port: int, **other: Any) -> EmailSettings:
    plain: dict[str, Any] = {"security": "none", **other}
    return EmailSettings("127.0.0.1", "store@example.org", ("ana@example.org", "ben@example.org"), port=port, **plain)


@pytest.fixture(params=["slack", "webhook", "alertmanager", "email"])
def place(request: pytest.FixtureRequest, receiver: HttpReceiver, mail: MailServer) -> Place:
    if request.param == "email":
        settings: SinkSettings = email_settings(mail.port)
        return Place(
            sink_of(settings, lambda: NOW),
            settings,
            lambda how: mail.answers.update({"MAIL": SMTP_CODES[how]}),
            lambda: [str(message["Subject"]) for message in mail.mail],
        )
    settings, titles = HTTP_KINDS[request.param]
    return Place(
        sink_of(settings, lambda: NOW),
        settings,
        lambda how: receiver.answers.append(HTTP_CODES[how]),
        lambda: [title for document in receiver.documents() for title in titles(document)],
    )


def send_all(sink: Sink, notices: Sequence[Notice]) -> None:
    for batch in sink.batches(notices):
        assert sink.send(batch) == ""


def whole_text(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def test_an_episode_arrives_in_order(place: Place) -> None:
    told = [
        notice("opened"),
        notice("raised", 2, status="BREACH", at=T0 + MINUTE),
        notice("recovered", 3, status="BREACH", at=T0 + 2 * MINUTE),
    ]
    send_all(place.sink, told)
    name = GROUPS[0]
    wanted = [
        f"WARN: freshness of {name}",
        f"BREACH (was WARN): freshness of {name}",
        f"Recovered: freshness of {name}",
    ]
    heard = place.taken()
    positions = [next(i for i, text in enumerate(heard) if title in text) for title in wanted]
    assert positions == sorted(positions)
    assert len(heard) in (3, 4), "Alertmanager gets a raise as the end of one alert and the beginning of another"


def test_a_sink_that_is_busy_or_broken_is_to_be_asked_later(place: Place) -> None:
    for how in ("later", "busy"):
        place.fail(how)
        with pytest.raises(SinkUnavailable, match=str(HTTP_CODES[how]) + "|" + SMTP_CODES[how][:3]):
            place.sink.send([notice()])
    assert place.taken() == []


def test_a_sink_that_refuses_says_so(place: Place) -> None:
    place.fail("refused")
    with pytest.raises(AlertRefused, match=r"404|554"):
        place.sink.send([notice()])


def test_no_secret_is_in_any_error_log_or_repr(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    shown = repr(place.sink) + repr(place.settings) + str(place.settings)
    for how in ("later", "refused"):
        place.fail(how)
        with pytest.raises((SinkUnavailable, AlertRefused)) as failed:
            place.sink.send([notice()])
        shown += whole_text(failed.value)
    for secret in (SECRET, "hooksecretpath", TOKEN):
        assert secret not in shown + caplog.text


@pytest.mark.parametrize("before", ["invalid ", "x" * (http.SHOWN_BYTES - 15), "x " * (http.SHOWN_BYTES // 2 - 4)])
def test_a_token_that_an_answer_repeats_is_not_shown_whole_or_by_half(receiver: HttpReceiver, before: str) -> None:
    receiver.text = before + "{authorization}, {authorization} is not good"
    for kind in ("webhook", "alertmanager"):
        for status in (401, 502):
            receiver.answers.append(status)
            with pytest.raises((AlertRefused, SinkUnavailable)) as failed:
                sink_of(HTTP_KINDS[kind][0], lambda: NOW).send([notice()])
            assert TOKEN not in whole_text(failed.value)
            assert TOKEN[:5] not in str(failed.value)
            assert f"HTTP {status}: {before[:5]}" in str(failed.value)


def test_a_user_and_a_password_that_an_answer_repeats_are_not_shown(receiver: HttpReceiver) -> None:
    receiver.answers.append(401)
    receiver.text = f"nobody knows ana-banana with {TOKEN}: {{authorization}}"
    settings = AlertmanagerSettings(url=receiver.url, username="ana-banana", password_env="ALERT_TOKEN")
    with pytest.raises(AlertRefused) as failed:
        sink_of(settings, lambda: NOW).send([notice()])
    assert str(failed.value) == "HTTP 401: nobody knows ... with ...: Basic ... ..."


@pytest.mark.parametrize("secret", ['to"ken<1>', "to%2Fken/1", "to ken"])
def test_a_secret_that_an_answer_writes_in_another_way_is_not_shown(
    receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    monkeypatch.setenv("ALERT_TOKEN", secret)
    settings = AlertmanagerSettings(url=receiver.url, username="ana", password_env="ALERT_TOKEN")
    for written in (json.dumps(secret), quote(secret, safe=""), unquote(secret), escape(secret)):
        receiver.answers.append(401)
        receiver.text = f"no: {written} is wrong:"
        with pytest.raises(AlertRefused) as failed:
            sink_of(settings, lambda: NOW).send([notice()])
        assert str(failed.value).replace('"', "") == "HTTP 401: no: ... is wrong: ..."


@pytest.mark.parametrize("kind", ["slack", "webhook", "alertmanager"])
def test_an_answer_that_lies_about_its_encoding_means_what_its_status_says(kind: str, receiver: HttpReceiver) -> None:
    receiver.headers["Content-Encoding"] = "gzip"
    sink = sink_of(HTTP_KINDS[kind][0], lambda: NOW)
    receiver.answers += [502, 400]
    with pytest.raises(SinkUnavailable, match="HTTP 502"):
        sink.send([notice()])
    with pytest.raises(AlertRefused, match="HTTP 400"):
        sink.send([notice()])
    sink.send([notice()])
    assert len(receiver.posted) == 1


@pytest.mark.parametrize("kind", ["slack", "webhook", "alertmanager", "email"])
def test_a_server_that_is_down_or_silent_is_given_up_within_its_time(
    kind: str, monkeypatch: pytest.MonkeyPatch, receiver: HttpReceiver
) -> None:
    monkeypatch.setattr(http, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(email, "STEP_SECONDS", 0.3)
    with silent_port() as silent, closed_port() as closed:
        for port in (closed, silent):
            monkeypatch.setenv("ALERT_URL", f"http://127.0.0.1:{port}/{SECRET}")
            settings = email_settings(port) if kind == "email" else HTTP_KINDS[kind][0]
            with pytest.raises(SinkUnavailable, match="No answer") as failed:
                sink_of(settings, lambda: NOW).send([notice()])
            assert SECRET not in whole_text(failed.value)


@pytest.mark.parametrize("kind", ["slack", "webhook", "alertmanager"])
def test_a_variable_that_is_not_set_or_holds_no_address_is_named_and_not_shown(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = sink_of(HTTP_KINDS[kind][0], lambda: NOW)
    monkeypatch.setenv("ALERT_TOKEN", TOKEN)
    with pytest.raises(InvalidInput, match="ALERT_URL is not set"):
        sink.send([notice()])
    monkeypatch.setenv("ALERT_URL", SECRET)
    with pytest.raises(InvalidInput, match="begins with http") as failed:
        sink.send([notice()])
    assert SECRET not in whole_text(failed.value)


def test_a_token_that_http_does_not_carry_is_refused_without_showing_it(
    receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for token in (f"{TOKEN}\n", f"{TOKEN}é"):
        monkeypatch.setenv("ALERT_TOKEN", token)
        with pytest.raises(FeatureStoreError, match="character") as failed:
            sink_of(HTTP_KINDS["webhook"][0], lambda: NOW).send([notice()])
        assert TOKEN not in whole_text(failed.value)


def test_redirects_are_not_followed(receiver: HttpReceiver) -> None:
    receiver.answers.append(302)
    with pytest.raises(AlertRefused, match="302"):
        sink_of(HTTP_KINDS["webhook"][0], lambda: NOW).send([notice()])


def test_the_webhook_gets_a_document_with_a_stable_id_and_every_fact(receiver: HttpReceiver) -> None:
    one = notice("opened", status="BREACH", blamed=BLAMED)
    sink = sink_of(HTTP_KINDS["webhook"][0], lambda: NOW)
    sink.send([one])
    sink.send([one])
    first, second = receiver.posted
    assert first.document == second.document
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"] == first.document["id"] == "e1-1"
    assert first.headers["authorization"] == f"Bearer {TOKEN}"
    assert {name: first.document[name] for name in ("version", "event", "status", "urgency", "owner", "tier", "kind")} == {
        "version": 1, "event": "opened", "status": "BREACH", "urgency": "page", "owner": "team:kiosks", "tier": "hourly",
        "kind": "freshness",
    }  # fmt: skip
    assert first.document["first_late"]["asset"] == "raw/orders"
    assert first.document["url"] == "http://dagster.example.org:3000/assets/raw/orders"
    assert "First late  raw/orders of team:tills" in first.document["message"]


def test_slack_gets_one_message_for_what_has_one_cause_and_nothing_in_it_calls_anybody(receiver: HttpReceiver) -> None:
    sink = sink_of(HTTP_KINDS["slack"][0], lambda: NOW)
    same = [notice(episode_id=f"e{n}", group=f"g{n}", blamed=BLAMED, text="<!channel> & late") for n in range(12)]
    other = notice(episode_id="e99", group="other")
    over = notice("recovered", 2, "e1", group="g1", blamed=BLAMED)
    send_all(sink, [*same, other, over])
    first, second, third = receiver.documents()
    assert first["text"] == "WARN: 12 alerts, first late raw/orders"
    assert [len(document["blocks"]) for document in (first, second, third)] == [12, 2, 2]
    assert "... and 2 more" in first["blocks"][-1]["text"]["text"]
    assert "&lt;!channel&gt; &amp; late" in first["blocks"][1]["text"]["text"]
    assert "<!" not in str(first)
    assert third["text"].startswith("Recovered: freshness of g1")


def test_slack_gets_no_section_beyond_what_it_takes(receiver: HttpReceiver) -> None:
    sink_of(HTTP_KINDS["slack"][0], lambda: NOW).send([notice(text="long " * 2000)])
    (document,) = receiver.documents()
    assert all(len(block["text"]["text"]) <= 3000 for block in document["blocks"])


def alerts(receiver: HttpReceiver) -> list[tuple[str, datetime, datetime]]:
    """What Alertmanager was told last: severity, start and end."""
    found = receiver.documents()[-1]
    return [
        (one["labels"]["severity"], datetime.fromisoformat(one["startsAt"]), datetime.fromisoformat(one["endsAt"]))
        for one in found
    ]


def test_alertmanager_gets_alerts_with_labels_and_a_time_at_which_they_end(receiver: HttpReceiver) -> None:
    sink = sink_of(AlertmanagerSettings(url=receiver.url, username="ana", password_env="ALERT_TOKEN"), lambda: NOW)
    sink.send([notice("opened", blamed=BLAMED)])
    (posted,) = receiver.posted
    assert posted.path == "/api/v2/alerts"
    assert posted.headers["authorization"].startswith("Basic ")
    (alert,) = posted.document
    assert alert["labels"] == {
        "alertname": "FeaturestoreFreshness", "kind": "freshness", "group": GROUPS[0], "owner": "team:kiosks",
        "tier": "hourly", "severity": "warning", "urgency": "ticket", "asset": f"offline/{GROUPS[0]}",
    }  # fmt: skip
    assert alert["annotations"]["first_late"].startswith("raw/orders of team:tills")
    assert alerts(receiver) == [("warning", T0, NOW + 15 * MINUTE)]
    sink.send([notice("raised", 2, status="BREACH")])
    assert alerts(receiver) == [("warning", T0 - MINUTE, T0), ("critical", T0, NOW + 15 * MINUTE)]
    sink.send([notice("recovered", 3, status="BREACH")])
    assert alerts(receiver) == [("critical", T0 - MINUTE, T0)]
    assert sink.repeat_every == timedelta(minutes=1)


def test_alertmanager_gets_the_last_word_on_an_alert_in_a_post_of_its_own(receiver: HttpReceiver) -> None:
    sink = sink_of(HTTP_KINDS["alertmanager"][0], lambda: NOW)
    told = [notice(), notice(group="g2"), notice("recovered", 2), notice("opened", 1, "e2")]
    assert [len(batch) for batch in sink.batches(told)] == [2, 1, 1]


def test_mail_of_an_episode_is_one_thread_in_plain_text_and_html(mail: MailServer) -> None:
    sink = sink_of(email_settings(mail.port), lambda: NOW)
    send_all(sink, [notice(text="a < b"), notice("raised", 2, status="BREACH")])
    first, second = mail.mail
    assert [first["Message-ID"], first["In-Reply-To"]] == ["<e1-1@example.org>", None]
    assert [second["Message-ID"], second["In-Reply-To"], second["References"]] == [
        "<e1-2@example.org>", "<e1-1@example.org>", "<e1-1@example.org>",
    ]  # fmt: skip
    assert first["Subject"] == f"WARN: freshness of {GROUPS[0]}"
    assert (first["To"], first["Auto-Submitted"]) == ("ana@example.org, ben@example.org", "auto-generated")
    plain, html = (part.get_payload(decode=True).decode() for part in first.get_payload())  # type: ignore[union-attr]
    assert "What        a < b" in plain.replace("\r\n", "\n")
    assert "a &lt; b" in html


def test_mail_that_some_are_refused_is_delivered_with_a_remark_and_that_all_are_refused_is_not(
    mail: MailServer,
) -> None:
    sink = sink_of(email_settings(mail.port), lambda: NOW)
    mail.refused["ben@example.org"] = "550 unknown"
    assert sink.send([notice()]) == "ben@example.org was refused: 550"
    mail.refused["ana@example.org"] = "450 later"
    with pytest.raises(SinkUnavailable, match="Nobody was accepted"):
        sink.send([notice()])
    mail.refused["ana@example.org"] = "550 unknown"
    with pytest.raises(AlertRefused, match="Nobody was accepted"):
        sink.send([notice()])


@pytest.mark.parametrize("goodbye", ["421 closing", "250 fine", "554 no", "what?"])
def test_mail_that_was_taken_or_refused_stays_so_whatever_the_server_says_to_the_goodbye(
    mail: MailServer, goodbye: str
) -> None:
    sink = sink_of(email_settings(mail.port), lambda: NOW)
    mail.answers["QUIT"] = goodbye
    assert sink.send([notice()]) == ""
    assert len(mail.mail) == 1
    for answer, error in (("554 no spam", AlertRefused), ("451 greylisted", SinkUnavailable)):
        mail.answers["MAIL"] = answer
        with pytest.raises(error, match=answer[:3]):
            sink.send([notice()])


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_mail_goes_by_tls_with_a_password_only_where_the_certificate_is_trusted(
    security: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, authority = certificate(tmp_path)
    monkeypatch.setenv("MAIL_PASSWORD", TOKEN)
    with mail_server(context, is_tls=security == "tls") as server:
        settings = email_settings(server.port, security=security, username="store", password_env="MAIL_PASSWORD")
        settings = replace(settings, host="localhost")
        sink = sink_of(settings, lambda: NOW)
        with pytest.raises(SinkUnavailable, match="certificate"):
            sink.send([notice()])
        assert server.logins == []
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        sink.send([notice()])
        assert server.logins == [f"store {TOKEN}"]
        server.answers["AUTH"] = f"535 bad {TOKEN}"
        with pytest.raises(AlertRefused, match="not accepted") as failed:
            sink.send([notice()])
        assert TOKEN not in whole_text(failed.value)


def certificate(folder: Path) -> Any:
    """A server's context for 'localhost', and the file of who signed it."""
    import ssl

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")]),
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2020, 1, 1))  # noqa: DTZ001 - cryptography takes UTC without a zone
        .not_valid_after(datetime(2120, 1, 1))  # noqa: DTZ001
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(key.private_bytes(*form))
    (folder / "certificate.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return context, folder / "certificate.pem"
