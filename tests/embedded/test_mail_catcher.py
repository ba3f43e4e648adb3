"""The mailbox end to end: real SMTP in, real HTTP out, on loopback."""

from __future__ import annotations

import asyncio
import signal
import smtplib
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from http.client import HTTPConnection
from pathlib import Path

import pytest

from scanner.embedded import mail_catcher
from scanner.embedded.mail_catcher import MailStore, serve
from scanner.errors import ConfigurationError


def compose(
    subject: str, text: str = "Hello", html: str | None = "<head></head><b>Hi</b>"
) -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Patrol <patrol@patrol.example>"
    message["To"] = "mia@contoso.example"
    message["Subject"] = subject
    message["Message-ID"] = "<1@patrol.example>"
    message.set_content(text)
    if html is not None:
        message.add_alternative(html, subtype="html")
    return message


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: str


@dataclass(frozen=True)
class Catcher:
    store: MailStore
    smtp_port: int
    http_port: int

    def send(self, *messages: EmailMessage) -> None:
        with smtplib.SMTP("127.0.0.1", self.smtp_port, "localhost", timeout=5) as server:
            for message in messages:
                server.send_message(message)

    def get(self, path: str, host: str = "127.0.0.1") -> Answer:
        with closing(HTTPConnection("127.0.0.1", self.http_port, timeout=5)) as connection:
            connection.request("GET", path, headers={"Host": host, "Connection": "close"})
            answer = connection.getresponse()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, headers, answer.read().decode())


@contextmanager
def running(directory: Path) -> Iterator[Catcher]:
    """Both servers in a thread; their sockets listen before it starts, so nothing is waited for."""
    store = MailStore(directory)
    smtp, http = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    for listener in (smtp, http):
        listener.setblocking(False)
    ports = smtp.getsockname()[1], http.getsockname()[1]
    stop = asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        await mail_catcher.run(store, smtp, http, stop=stop)

    thread = threading.Thread(target=asyncio.run, args=[main()])
    thread.start()
    try:
        yield Catcher(store, *ports)
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join()


@pytest.fixture(scope="module")
def catcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catcher]:
    with running(tmp_path_factory.mktemp("mails")) as both:
        yield both


def test_a_mail_that_is_sent_can_be_read(catcher: Catcher) -> None:
    catcher.send(compose("Revoked: your token “ci-deploy”", text="Plain words, é\n"))
    summary = catcher.store.list()[0]
    assert summary.subject == "Revoked: your token “ci-deploy”"
    assert summary.to == "mia@contoso.example"
    assert summary.message_id == "<1@patrol.example>"
    assert "Revoked: your token “ci-deploy”" in catcher.get("/").body
    page = catcher.get(f"/mail/{summary.id}")
    assert page.status == 200
    assert "Plain words, é" in page.body
    assert f'src="/mail/{summary.id}/html"' in page.body
    assert "sandbox=" in page.body
    frame = catcher.get(f"/mail/{summary.id}/html")
    assert "<b>Hi</b>" in frame.body
    assert '<base target="_blank">' in frame.body
    assert "Subject:" in catcher.get(f"/mail/{summary.id}/source").body


def test_the_newest_mail_comes_first_and_the_list_reloads(catcher: Catcher) -> None:
    catcher.send(*(compose(f"Number {n}") for n in range(5)))
    assert [mail.subject for mail in catcher.store.list(5)] == [
        f"Number {n}" for n in (4, 3, 2, 1, 0)
    ]
    page = catcher.get("/").body
    assert page.index("Number 4") < page.index("Number 3")
    assert 'http-equiv="refresh"' in page


def test_markup_in_a_mail_stays_text(catcher: Catcher) -> None:
    evil = "<script>alert(1)</script>"
    message = compose(f"{evil}", text=f"</pre>{evil}", html=f"<head></head>{evil}")
    catcher.send(message)
    mail_id = catcher.store.list(1)[0].id
    for path in ("/", f"/mail/{mail_id}"):
        answer = catcher.get(path)
        assert evil not in answer.body
        assert "&lt;script&gt;" in answer.body
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "script-src" not in answer.headers["content-security-policy"]
    # The frame has the mail's own HTML; its headers forbid every script, as does the sandbox.
    policy = catcher.get(f"/mail/{mail_id}/html").headers["content-security-policy"]
    assert policy.startswith("sandbox allow-popups")
    assert "allow-scripts" not in policy
    assert "default-src 'none'" in policy
    source = catcher.get(f"/mail/{mail_id}/source")
    assert source.headers["content-type"].startswith("text/plain")
    assert source.headers["x-content-type-options"] == "nosniff"


def test_what_is_not_there_is_404(catcher: Catcher, tmp_path: Path) -> None:
    for name in ("nothing", "..%2f..%2fetc%2fpasswd", f"{0:020d}-{0:08x}"):
        for rest in ("", "/html", "/source"):
            assert catcher.get(f"/mail/{name}{rest}").status == 404
    assert catcher.get("/elsewhere").status == 404
    (tmp_path / "secret.eml").write_bytes(b"Subject: secret")
    assert MailStore(tmp_path / "mails").read("../secret") is None
    assert MailStore(tmp_path / "mails").source("../secret") is None


def test_a_name_that_leads_here_from_elsewhere_is_refused(catcher: Catcher) -> None:
    assert catcher.get("/", host="rebound.example").status == 400
    assert catcher.get("/", host="localhost:8026").status == 200


def test_a_mail_that_is_too_large_is_refused(catcher: Catcher) -> None:
    before = len(catcher.store.ids())
    with pytest.raises(smtplib.SMTPResponseException) as caught:
        catcher.send(compose("Big", text=("x" * 70 + "\n") * (mail_catcher.LARGEST_MAIL // 70)))
    assert caught.value.smtp_code == 552
    assert len(catcher.store.ids()) == before


def test_a_full_disk_is_told_to_the_sender(tmp_path: Path) -> None:
    with running(tmp_path / "mails") as both:
        (tmp_path / "mails").rmdir()
        with pytest.raises(smtplib.SMTPDataError) as caught:
            both.send(compose("Lost"))
    assert caught.value.smtp_code == 452


def test_files_are_the_owners_only_and_whole(tmp_path: Path) -> None:
    store = MailStore(tmp_path / "mails")
    ids = [store.add(compose(f"Number {n}").as_bytes()) for n in range(3)]
    assert ids == sorted(ids)
    assert stat.S_IMODE(store.directory.stat().st_mode) == 0o700
    files = sorted(store.directory.iterdir())
    assert [path.name for path in files] == [f"{mail_id}.eml" for mail_id in ids]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    (store.directory / ".half.writing").write_bytes(b"Subject: half")
    (store.directory / "stranger.eml").write_bytes(b"Subject: stranger")
    assert [mail.id for mail in store.list()] == ids[::-1]


def test_a_mail_of_any_shape_can_be_listed_and_read(tmp_path: Path) -> None:
    store = MailStore(tmp_path)
    shapes = [
        b"",
        b"\x00\xff\r\n\r\n\xff",
        b"Subject: =?no-such-charset?q?x?=\r\nTo: <<@>,\r\n"
        b"Content-Type: text/plain; charset=nope\r\n\r\nhi",
        b"Content-Type: multipart/mixed\r\n\r\nno boundary",
        compose("Text only", html=None).as_bytes(),
    ]
    ids = [store.add(raw) for raw in shapes]
    assert len(store.list()) == len(shapes)
    assert [store.source(mail_id) for mail_id in ids] == shapes
    assert all(store.read(mail_id) is not None for mail_id in ids)
    assert store.list()[-1].subject == "(no subject)"
    with running(tmp_path) as both:
        pages = [both.get(f"/mail/{mail_id}") for mail_id in ids]
        assert both.get("/").status == 200
    assert [page.status for page in pages] == [200] * len(shapes)
    assert "<pre>hi</pre>" in pages[2].body
    assert "<iframe" not in pages[4].body
    assert "Text only" in pages[4].body


def test_a_taken_port_is_one_clear_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"Port {port} .*is taken.*PATROL_SMTP_PORT"):
            serve(tmp_path, port, 0)
        with pytest.raises(ConfigurationError, match=f"Port {port} .*is taken.*PATROL_MAIL_PORT"):
            serve(tmp_path, 0, port)


def test_a_directory_that_cannot_be_made_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be made"):
        MailStore(tmp_path / "file" / "mails")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_process_takes_mail_until_it_is_told_to_stop(
    tmp_path: Path, number: signal.Signals
) -> None:
    smtp_port, http_port = _free_port(), _free_port()
    program = (
        "import sys; from pathlib import Path; from scanner.embedded.mail_catcher import serve; "
        "serve(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])); sys.exit(7)"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path), str(smtp_port), str(http_port)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 15
        while True:  # until it listens: the outside can only knock
            try:
                socket.create_connection(("127.0.0.1", http_port), timeout=1).close()
                break
            except ConnectionRefusedError:
                assert process.poll() is None
                assert time.monotonic() < deadline
        Catcher(MailStore(tmp_path), smtp_port, http_port).send(compose("Over SMTP"))
        assert MailStore(tmp_path).list()[0].subject == "Over SMTP"
        process.send_signal(number)
        output, _ = process.communicate(timeout=10)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 7  # serve() returned by itself
    assert output == b""
