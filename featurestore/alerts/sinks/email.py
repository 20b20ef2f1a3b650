"""E-mail by SMTP: a message a notice, those of one episode in one thread."""

import smtplib
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from email.message import EmailMessage
from email.utils import format_datetime
from html import escape

from featurestore.alerts.notice import Notice
from featurestore.alerts.settings import EmailSettings, secret
from featurestore.alerts.sinks.sink import one_by_one
from featurestore.alerts.text import body, headline
from featurestore.errors import AlertRefused, InvalidInput, SinkUnavailable

STEP_SECONDS = 8.0
"""Limit on each step of a conversation with the server."""
PERMANENT = 500


class EmailSink:
    """One mail server, one sender, and whom to write to."""

    repeat_every: timedelta | None = None

    def __init__(self, settings: EmailSettings) -> None:
        self._settings = settings

    def batches(self, notices: Sequence[Notice]) -> list[list[Notice]]:
        return one_by_one(notices)

    def send(self, notices: Sequence[Notice]) -> str:
        remarks = []
        with _errors(), self._server() as server:
            for notice in notices:
                refused = server.send_message(message_of(notice, self._settings))
                remarks += [f"{whom} was refused: {code}" for whom, (code, _) in refused.items()]
        return "; ".join(remarks)

    @contextmanager
    def _server(self) -> Iterator[smtplib.SMTP]:
        settings = self._settings
        password = secret(settings.password_env) if settings.password_env else ""
        context = ssl.create_default_context()
        if settings.security == "tls":
            opened: smtplib.SMTP = smtplib.SMTP_SSL(settings.host, settings.port, timeout=STEP_SECONDS, context=context)
        else:
            opened = smtplib.SMTP(settings.host, settings.port, timeout=STEP_SECONDS)
        try:
            if settings.security == "starttls":
                opened.starttls(context=context)
            if settings.username:
                opened.login(settings.username, password)
            yield opened
        finally:
            _leave(opened)


def _leave(server: smtplib.SMTP) -> None:
    """Whatever the server says to a goodbye: what it took it has, and what it refused it has not."""
    with suppress(smtplib.SMTPException, OSError):
        server.quit()
    server.close()


def message_of(notice: Notice, settings: EmailSettings) -> EmailMessage:
    """A notice as a message; its id is the notice's, and what follows the first of an episode is an answer to that."""
    message = EmailMessage()
    domain = settings.sender.rpartition("@")[2].rstrip(">")
    message["Subject"] = headline(notice).replace("\n", " ")
    message["From"], message["To"] = settings.sender, ", ".join(settings.to)
    message["Date"] = format_datetime(notice.at)
    message["Message-ID"] = f"<{notice.notice_id}@{domain}>"
    message["Auto-Submitted"] = "auto-generated"
    first = f"<{notice.episode_id}-1@{domain}>"
    if message["Message-ID"] != first:
        message["In-Reply-To"] = message["References"] = first
    message.set_content(f"{body(notice)}\n")
    message.add_alternative(f"<pre>{escape(body(notice))}</pre>\n", subtype="html")
    return message


@contextmanager
def _errors() -> Iterator[None]:
    """What an SMTP server says, as what it means; what it was sent is in none of its errors."""
    try:
        yield
    except smtplib.SMTPRecipientsRefused as error:
        codes = {whom: code for whom, (code, _) in error.recipients.items()}
        told = f"Nobody was accepted: {codes}"
        raise (AlertRefused(told) if min(codes.values()) >= PERMANENT else SinkUnavailable(told)) from None
    except smtplib.SMTPAuthenticationError as error:
        raise _meaning(error.smtp_code, "the user or the password was not accepted") from None
    except smtplib.SMTPResponseException as error:
        raise _meaning(error.smtp_code, str(error.smtp_error)[:200]) from None
    except smtplib.SMTPNotSupportedError as error:
        raise AlertRefused(f"The mail server cannot do what is asked of it: {error}") from None
    except UnicodeError:
        raise InvalidInput(
            "The user, the password or an address of this sink has a character that SMTP does not carry."
        ) from None
    except (smtplib.SMTPException, OSError) as error:
        raise SinkUnavailable(f"No answer: {error or type(error).__name__}") from None


def _meaning(code: int, told: str) -> AlertRefused | SinkUnavailable:
    text = f"SMTP {code}: {told}"
    return AlertRefused(text) if code >= PERMANENT else SinkUnavailable(text)
