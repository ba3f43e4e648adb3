"""Mail over SMTP: one notice, one recipient, one attempt."""

from __future__ import annotations

import logging
import re
import smtplib
import ssl
from dataclasses import dataclass
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, parseaddr
from urllib.parse import unquote, urlsplit

from notifier.errors import DeliveryError
from notifier.notice import Notice
from notifier.render import Rendered

log = logging.getLogger(__name__)

_PORTS = {"smtp": 25, "smtps": 465, "smtp+starttls": 587}
_ADDRESS = re.compile(r"[^\s@<>()\[\],;:\\\"\x00-\x20\x7f]+@[^\s@<>()\[\],;:\\\"\x00-\x20\x7f]+")
_ENHANCED = re.compile(rb"[245]\.\d{1,3}\.\d{1,3}(?!\S)")


@dataclass(frozen=True, slots=True)
class _Server:
    scheme: str
    host: str
    port: int
    user: str | None
    password: str | None


class EmailChannel:
    """Delivers over SMTP.

    `smtp_url` is `smtp://`, `smtps://` (TLS from the start) or `smtp+starttls://`, then
    `[user:password@]host[:port]`, both percent-encoded; TLS certificates are verified. `mail_from`
    is an address with or without a name. `timeout` is in seconds, for each step of the
    conversation. Raises `ValueError`, without the URL's credentials, when one is not usable.
    """

    def __init__(self, smtp_url: str, mail_from: str, timeout: float = 20) -> None:
        self._server = _parse_url(smtp_url)
        name, address = parseaddr(mail_from)
        if not _ADDRESS.fullmatch(address):
            raise ValueError("The sender's address is not usable; write it as: Name <user@domain>")
        self._from = Address(display_name=name, addr_spec=address)
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"EmailChannel({self.address})"

    @property
    def address(self) -> str:
        """The server's address, without credentials."""
        return f"{self._server.scheme}://{self._server.host}:{self._server.port}"

    def send(self, notice: Notice, mail: Rendered) -> None:
        """Deliver one mail.

        Raises `DeliveryError`. Permanent is what concerns this mail: an address that is none, a
        recipient or a message refused with 5xx. All else may be mended by waiting or by an operator
        (network, TLS, sign-in, a refused sender) and is worth another try.
        """
        if not _ADDRESS.fullmatch(notice.to):
            raise DeliveryError("the recipient's address is not usable", permanent=True)
        message = self._compose(notice, mail)
        server = self._connect()
        try:
            self._deliver(server, message, notice.to)
        finally:
            server.close()

    def check(self) -> None:
        """Connect and sign in, and send nothing. Raises `DeliveryError`."""
        self._connect().close()

    def _compose(self, notice: Notice, mail: Rendered) -> EmailMessage:
        message = EmailMessage(policy=SMTP)
        try:
            message["From"] = self._from
            message["To"] = notice.to
            message["Subject"] = mail.subject
            message["Date"] = formatdate(usegmt=True)
            message["Message-ID"] = notice.message_id
            message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no vacation replies
            message["X-Auto-Response-Suppress"] = "All"  # the same for Exchange
            if notice.correlation_id is not None:
                message["X-Patrol-Correlation-Id"] = notice.correlation_id
            if notice.reply_to is not None:
                if _ADDRESS.fullmatch(notice.reply_to):
                    message["Reply-To"] = notice.reply_to
                else:  # worth a line, not worth keeping the owner in the dark
                    log.warning("notice %s: its Reply-To is no address", notice.message_id)
            # Quoted-printable: lines stay short and seven-bit, whatever the relays support.
            message.set_content(mail.text, cte="quoted-printable")
            message.add_alternative(mail.html, subtype="html", cte="quoted-printable")
        except (ValueError, MessageError):
            raise DeliveryError("the mail could not be composed", permanent=True) from None
        return message

    def _connect(self) -> smtplib.SMTP:
        target = self._server
        server: smtplib.SMTP | None = None
        # Our name in EHLO comes from the sender, else smtplib would ask DNS for the machine's.
        name = self._from.domain if self._from.domain.isascii() else "localhost"
        try:
            if target.scheme == "smtps":
                server = smtplib.SMTP_SSL(
                    target.host,
                    target.port,
                    local_hostname=name,
                    timeout=self._timeout,
                    context=ssl.create_default_context(),
                )
            else:
                server = smtplib.SMTP(
                    target.host, target.port, local_hostname=name, timeout=self._timeout
                )
            if target.scheme == "smtp+starttls":
                server.starttls(context=ssl.create_default_context())
            if target.user is not None:
                server.login(target.user, target.password or "")
        except (smtplib.SMTPException, OSError, ValueError) as error:
            if server is not None:
                server.close()
            # `from None`: a UnicodeEncodeError would carry the password along.
            raise DeliveryError(_explain("connecting", error), permanent=False) from None
        return server

    def _deliver(self, server: smtplib.SMTP, message: EmailMessage, to: str) -> None:
        try:
            server.send_message(message, self._from.addr_spec, [to])
        except smtplib.SMTPRecipientsRefused as error:
            code, reply = error.recipients[to]
            text = f"the mail server refused the recipient ({_status(code, reply)})"
            raise DeliveryError(text, permanent=code >= 500) from None
        except smtplib.SMTPDataError as error:
            status = _status(error.smtp_code, error.smtp_error)
            text = f"the mail server refused the message ({status})"
            raise DeliveryError(text, permanent=error.smtp_code >= 500) from None
        except smtplib.SMTPNotSupportedError:
            text = "the mail server cannot take an address that is not ASCII"
            raise DeliveryError(text, permanent=True) from None
        except (smtplib.SMTPException, OSError) as error:
            raise DeliveryError(_explain("sending", error), permanent=False) from None
        try:
            server.quit()
        except (smtplib.SMTPException, OSError):
            # The mail is accepted; a failed goodbye must not send it again.
            log.debug("the mail server did not answer QUIT")


def _parse_url(url: str) -> _Server:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("The SMTP URL is not usable: its host or port is malformed") from None
    if parts.scheme not in _PORTS:
        raise ValueError(f"The SMTP URL must begin with {', '.join(f'{s}://' for s in _PORTS)}")
    if not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("The SMTP URL must be scheme://user:password@host:port and nothing more")
    if parts.password is not None and not parts.username:
        raise ValueError("The SMTP URL has a password, but no user")
    return _Server(
        scheme=parts.scheme,
        host=parts.hostname,
        port=port or _PORTS[parts.scheme],
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password is not None else None,
    )


def _explain(doing: str, error: Exception) -> str:
    """Say what went wrong in our words; the server's may quote the mail."""
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return f"the mail server refused our sign-in ({error.smtp_code})"
    if isinstance(error, smtplib.SMTPResponseException):
        status = _status(error.smtp_code, error.smtp_error)
        return f"the mail server answered {status} while {doing}"
    # smtplib reports a timeout while reading as a closed connection.
    if isinstance(error, TimeoutError) or isinstance(error.__context__, TimeoutError):
        return f"the mail server did not answer in time while {doing}"
    if isinstance(error, smtplib.SMTPServerDisconnected):
        return f"the mail server closed the connection while {doing}"
    if isinstance(error, ConnectionRefusedError):
        return "the mail server refuses connections"
    return f"the mail server could not be used while {doing} ({type(error).__name__})"


def _status(code: int, reply: bytes | str) -> str:
    raw = reply if isinstance(reply, bytes) else reply.encode("ascii", "replace")
    enhanced = _ENHANCED.match(raw)
    return f"{code} {enhanced[0].decode('ascii')}" if enhanced else str(code)
