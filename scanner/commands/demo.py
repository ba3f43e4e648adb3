"""patrol demo: the whole loop on this machine, with every line read back from where it happened."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import httpx2
from sqlalchemy import select

from scanner.bootstrap import Services
from scanner.commands.demo_guard import (
    ORGANISATION,
    engines,
    refuse_others_data,
    refuse_real_services,
)
from scanner.commands.process import check_settings
from scanner.commands.service import stay, stop_on_signals
from scanner.db import audit, policies, watches
from scanner.db.clock import now_ms
from scanner.db.engine import reader
from scanner.db.schema import audit_events, incidents, outbox, scans, sightings, tokens
from scanner.db.upgrade import upgrade_database
from scanner.embedded.git_server import GitServer, git
from scanner.embedded.mail_catcher import MailStore
from scanner.embedded.supervisor import Supervisor, mail_directory
from scanner.errors import FinalError
from scanner.matcher.mask import mask
from scanner.model import AuditAction, Secret
from scanner.patterns.generate import generate
from scanner.rounds import seal_all
from scanner.settings import load_settings
from scanner.stores.sql import ensure_owner

_PATIENCE = 20.0  # seconds for any one line
_OWNER = "Ada Byron"
_ZEROS = "0" * 40


def _line(at: int, what: str) -> None:
    moment = datetime.fromtimestamp(at / 1000, UTC)
    click.echo(f"  {moment:%H:%M:%S}.{at % 1000:03d}  {what}")


def _more(what: str) -> None:
    click.echo(f"      {what}")


class _Demo:
    def __init__(self, built: Services, server: GitServer, work: Path) -> None:
        self.built, self.server, self.work = built, server, work
        self.run = secrets.token_hex(3)
        self.api = httpx2.Client(base_url=built.settings.base_url, timeout=10, trust_env=False)

    def until(self, what: str, look: Callable[[], Any]) -> Any:
        """Return the first true answer of `look`; a clear sentence when it never comes."""
        deadline = time.monotonic() + _PATIENCE
        while not (answer := look()):
            if time.monotonic() > deadline:
                raise FinalError(
                    f"The demo waited {_PATIENCE:g} s in vain for: {what}. "
                    f"See {self.built.settings.data_dir}/logs and: patrol doctor"
                )
            time.sleep(0.01)  # polling a database that other processes write
        return answer

    def row(self, query: Any) -> Any:
        with reader(self.built.database).connect() as connection:
            return connection.execute(query).mappings().first()

    def now(self) -> int:
        with reader(self.built.database).connect() as connection:
            return now_ms(connection)

    def issue(self, name: str) -> tuple[Secret, str]:
        pattern = next(p for p in self.built.matcher_ruleset.patterns if p.id == "azure-devops-pat")
        secret = generate(pattern)
        token_id = self.built.builtin_store.issue(
            secret,
            organisation=ORGANISATION,
            owner=_OWNER,
            name=name,
            pattern=pattern.id,
            mask=mask(pattern, secret.reveal()),
            scopes=("vso.code_write", "vso.build_execute"),
            days=90,
            actor="demo",
        )
        return secret, token_id

    def status(self, secret: Secret) -> int:
        bearer = {"Authorization": f"Bearer {secret.reveal().decode()}"}
        return self.api.get("/api/v1/whoami", headers=bearer).status_code

    def repository(self, name: str) -> Path:
        """A bare repository on the demo's host and a clone with one harmless commit."""
        bare = self.server.create(f"demo/{name}")
        clone = self.work / name
        git("clone", "--quiet", str(bare), str(clone))
        self.commit(clone, "README.md", "# A service\n", "First commit")
        return clone

    def commit(self, clone: Path, path: str, content: str, message: str) -> tuple[str, str]:
        """Commit and push a file; returns (before, after)."""
        before = _ZEROS
        if (clone / "README.md").exists():
            before = git("rev-parse", "HEAD", cwd=clone)
        file = clone / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        git("add", "--all", cwd=clone)
        git("commit", "--quiet", "-m", message, cwd=clone)
        git("push", "--quiet", "origin", "HEAD:refs/heads/main", cwd=clone)
        return before, git("rev-parse", "HEAD", cwd=clone)

    def deliver(self, name: str, before: str, after: str) -> str:
        """Send GitHub's push webhook, signed, to the running service; returns the scan's id."""
        body = json.dumps(
            {
                "ref": "refs/heads/main",
                "before": before,
                "after": after,
                "forced": False,
                "repository": {"full_name": f"demo/{name}"},
            }
        ).encode()
        key = self.built.settings.all_hooks[0].secrets[0].get_secret_value().encode()
        answer = self.api.post(
            "/webhooks/github",
            content=body,
            headers={
                "Content-Type": "application/json",
                "X-GitHub-Event": "push",
                "X-GitHub-Delivery": secrets.token_hex(16),
                "X-Hub-Signature-256": "sha256=" + hmac.new(key, body, hashlib.sha256).hexdigest(),
            },
        )
        if answer.status_code != 202:
            raise FinalError(f"The webhook was answered {answer.status_code}, not 202.")
        return str(answer.json()["scan"])

    def follow_scan(self, scan_id: str, accepted: str) -> None:
        query = select(scans).where(scans.c.id == scan_id)
        row = self.row(query)
        _line(row["received_at"], accepted)
        row = self.until("the objects to be fetched", lambda: self._with(query, "fetched_at"))
        _line(row["fetched_at"], f"objects fetched   {row['bytes']} bytes, one request")
        row = self.until("a candidate", lambda: self._with(query, "matched_at"))
        if not row["candidates"]:
            raise FinalError("The scan found no candidate.")
        _line(row["matched_at"], f"candidate         {row['candidates']} found")

    def _with(self, query: Any, column: str) -> Any:
        row = self.row(query)
        return row if row is not None and row[column] is not None else None

    def follow_leak(self, token_id: str, secret: Secret) -> None:
        query = select(incidents).where(incidents.c.token_id == token_id)
        row = self.until("the store's proof", lambda: self.row(query))
        _line(row["opened_at"], f"store says        {row['validity']}: {row['token']['name']}")
        place = self.row(select(sightings).where(sightings.c.incident_id == row["id"]))
        _more(f"in {place['path']}, line {place['line']}, commit {place['commit'][:10]}")
        token = self.until(
            "the revocation",
            lambda: self._with(select(tokens).where(tokens.c.id == token_id), "revoked_at"),
        )
        if token["revoked_by"] != row["id"]:
            raise FinalError("The token was revoked, but not by this incident.")
        _line(token["revoked_at"], "revoked           by the policy of " + ORGANISATION)
        event = self.until(
            "the audit event",
            lambda: self.row(
                select(audit_events).where(
                    audit_events.c.incident_id == row["id"],
                    audit_events.c.action == AuditAction.TOKEN_REVOKED.value,
                )
            ),
        )
        _line(event["at"], f"audit written     {event['action']}")
        sent = self.until(
            "the mail",
            lambda: self._with(select(outbox).where(outbox.c.incident_id == row["id"]), "sent_at"),
        )
        _line(sent["sent_at"], f"mail delivered    to {sent['notice']['to']}")
        for line in self.mail(sent["id"]):
            _more(line)
        status = self.status(secret)
        if status != 401:
            raise FinalError(f"The revoked token was answered {status}, not 401.")
        _line(self.now(), "used again        refused (401)")

    def mail(self, outbox_id: str) -> tuple[str, str]:
        """Read the mail back from the catcher; returns its subject and its address."""
        store = MailStore(mail_directory(self.built.settings))
        for mail_id in store.ids():
            message = store.read(mail_id)
            if message is not None and outbox_id in str(message["Message-ID"]):
                port = self.built.settings.mail_port
                return str(message["Subject"]), f"http://127.0.0.1:{port}/mail/{mail_id}"
        raise FinalError("The mail was sent, but is not in the mailbox.")

    def push_story(self) -> None:
        click.echo("\n1. A push leaks a token; a webhook tells us.")
        name = f"billing-{self.run}"
        secret, token_id = self.issue("ci-deploy")
        if self.status(secret) != 200:
            raise FinalError("The fresh token does not work.")
        _line(self.now(), "token issued      ci-deploy; it works (200)")
        clone = self.repository(name)
        config = f"[deploy]\nuser = ci\ntoken = {secret.reveal().decode()}\n"
        before, after = self.commit(clone, "config/deploy.ini", config, "Deploy from CI")
        scan_id = self.deliver(name, before, after)
        self.follow_scan(scan_id, f"push accepted     demo/{name} {after[:10]}")
        self.follow_leak(token_id, secret)

    def watch_story(self) -> None:
        click.echo("\n2. Nobody tells us; a scheduled scan finds it.")
        name = f"website-{self.run}"
        secret, token_id = self.issue("nightly-sync")
        clone = self.repository(name)
        content = f'const TOKEN = "{secret.reveal().decode()}";\n'
        self.commit(clone, "src/sync.js", content, "Sync at night")
        with self.built.database.begin() as connection:
            watch_id = watches.add_watch(connection, self.server.url, f"demo/{name}", 3600, "demo")
        _line(self.now(), f"on the watch list demo/{name}")
        row = self.until(
            "beat to start the scan",
            lambda: self.row(select(scans).where(scans.c.watch_id == watch_id)),
        )
        self.follow_scan(row["id"], "scan started      by beat")
        self.follow_leak(token_id, secret)
        with self.built.database.begin() as connection:
            watches.remove_watch(connection, f"demo/{name}", "demo")


@click.command()
@click.option("--once", is_flag=True, help="end after the story instead of staying up")
@click.option(
    "--on-these-engines",
    is_flag=True,
    help="use the PATROL_DATABASE_URL and PATROL_BROKER_URL that are set: on loopback, and empty",
)
def demo(*, once: bool, on_these_engines: bool) -> None:
    """Issue a token, leak it in a real push, watch it found, revoked, mailed and audited.

    Everything happens on this machine, in the data directory; then it stays up, as patrol up does.
    """
    stop_on_signals()
    git("--version")
    first = load_settings()
    refuse_real_services(first, on_these_engines=on_these_engines)
    with (
        TemporaryDirectory(prefix="patrol-demo-") as folder,
        GitServer(Path(folder) / "served") as server,
    ):
        extra = {"PATROL_GITHUB_URL": server.url, "PATROL_ALLOW_HOSTS": server.address}
        settings = load_settings(
            {"github_url": server.url, "allow_hosts": (*first.allow_hosts, server.address)}
        )
        built = Services(settings)
        if on_these_engines:
            refuse_others_data(built)
            for line in engines(built):
                click.echo(line)
        upgrade_database(built.engine)
        with built.database.begin() as connection:
            ensure_owner(connection, ORGANISATION, _OWNER, "ada@contoso.example", None)
            told = policies.find(connection, ORGANISATION)
            policy = policies.current_policy(connection, told.store, told.id)
            if not policy.auto_revoke or policy.version == 0:
                policies.change(connection, told, enabled=True, actor="demo")
        check_settings(built)
        click.echo("Starting web, worker, beat, mail catcher and a git host on loopback.")
        with Supervisor(settings, extra) as supervisor:
            story = _Demo(built, server, Path(folder))
            story.push_story()
            story.watch_story()
            _verify(story)
            if not once:
                click.echo()
                stay(built, supervisor)
    seal_all(built)


def _verify(story: _Demo) -> None:
    def sealed() -> Any:
        with reader(story.built.database).connect() as connection:
            result = audit.verify(connection)
        return result if not result.unsealed else None

    result = story.until("the audit trail to be sealed", sealed)
    if result.problems:
        raise FinalError(f"The audit trail is not whole: {result.problems[0]}.")
    click.echo(f"\nBoth leaks ended. The audit trail is whole: {result.sealed} events sealed.")
