"""Mail over SMTP: one message to one recipient, tried once."""

from __future__ import annotations

import smtplib
import ssl
from email.message import EmailMessage
from email.utils import formatdate
from urllib.parse import unquote, urlsplit

from notifier.errors import DeliveryError
from notifier.notice import Notice
from notifier.render import Rendered

_SCHEMES = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}


class EmailChannel:
    """smtp://, smtp+starttls:// and smtps://, each with optional user:password@.

    Errors: `DeliveryError`, permanent when the server refused for good (5xx) or the address cannot
    be written in a header.
    """

    def __init__(self, smtp_url: str, mail_from: str, timeout: float = 20.0) -> None:
        parts = urlsplit(smtp_url)
        if parts.scheme not in _SCHEMES or not parts.hostname:
            raise ValueError("the mail server must be smtp://, smtp+starttls:// or smtps://host")
        self._scheme, self._host = parts.scheme, parts.hostname
        self._port = parts.port or _SCHEMES[parts.scheme]
        self._user = unquote(parts.username or "")
        self._password = unquote(parts.password or "")
        self._from = mail_from
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"EmailChannel({self._scheme}://{self._host}:{self._port})"

    def send(self, notice: Notice, rendered: Rendered) -> None:
        """Deliver to the server, or raise `DeliveryError`."""
        message = self._message(notice, rendered)
        try:
            with self._connect() as server:
                if self._user:
                    server.login(self._user, self._password)
                server.send_message(message)
        except smtplib.SMTPRecipientsRefused as error:
            code = next(iter(error.recipients.values()))[0]
            raise _refused(code) from None
        except smtplib.SMTPResponseException as error:
            raise _refused(error.smtp_code) from None
        except (OSError, smtplib.SMTPException) as error:
            raise DeliveryError(
                f"The mail server did not take the message ({type(error).__name__}).",
                permanent=False,
            ) from None

    def _connect(self) -> smtplib.SMTP:
        context = ssl.create_default_context()
        if self._scheme == "smtps":
            return smtplib.SMTP_SSL(self._host, self._port, timeout=self._timeout, context=context)
        server = smtplib.SMTP(self._host, self._port, timeout=self._timeout)
        if self._scheme == "smtp+starttls":
            server.starttls(context=context)
        return server

    def _message(self, notice: Notice, rendered: Rendered) -> EmailMessage:
        message = EmailMessage()
        try:
            message["From"] = self._from
            message["To"] = notice.to
            message["Subject"] = rendered.subject
            message["Date"] = formatdate(usegmt=True)
            message["Message-ID"] = notice.message_id
            message["Auto-Submitted"] = "auto-generated"
            message["X-Auto-Response-Suppress"] = "All"
            if notice.reply_to:
                message["Reply-To"] = notice.reply_to
        except ValueError:
            raise DeliveryError("An address cannot be written in a mail.", permanent=True) from None
        message.set_content(rendered.text)
        message.add_alternative(rendered.html, subtype="html")
        return message


def _refused(code: int) -> DeliveryError:
    return DeliveryError(f"The mail server refused the message ({code}).", permanent=code >= 500)
