"""Settings: one sentence for what is wrong, which names the setting and never the value."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scanner.errors import ConfigurationError
from scanner.keyring import Key
from scanner.redis_access import of_ledger
from scanner.settings import Hook, Settings, load_settings

GOOD = "f3b1c07ad92e4586"  # 16 characters: the shortest secret that is taken
HUSH = "hush-hush-hush-42"


@pytest.fixture(autouse=True)
def environment(tmp_path: Path) -> Iterator[None]:
    """Only what the test sets; what is made goes to a folder of the test's own."""
    before = {name: value for name, value in os.environ.items() if name.startswith("PATROL_")}
    for name in before:
        del os.environ[name]
    os.environ["PATROL_DATA_DIR"] = str(tmp_path / "data")
    yield
    for name in [name for name in os.environ if name.startswith("PATROL_")]:
        del os.environ[name]
    os.environ.update(before)


def refusal(call: Callable[[], Any]) -> str:
    """The one sentence that a wrong value is answered with."""
    with pytest.raises(ConfigurationError) as caught:
        call()
    said = str(caught.value)
    assert "\n" not in said
    assert HUSH not in said
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return said


def test_without_any_setting_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    del os.environ["PATROL_DATA_DIR"]
    settings = load_settings()
    assert settings.data_dir == Path("patrol-data")
    assert settings.database == f"sqlite:///{Path.cwd() / 'patrol-data' / 'patrol.db'}"
    assert settings.is_embedded_broker
    assert settings.smtp == "smtp://127.0.0.1:8025"
    assert settings.base_url == "http://127.0.0.1:8080"
    assert not settings.data_dir.exists()  # nothing is made before it is needed


def test_the_environment_is_read() -> None:
    os.environ |= {
        "PATROL_PORT": "9000",
        "PATROL_SMTP_URL": "smtp://mail.example:25",
        "PATROL_PUBLIC_URL": "https://patrol.example/",
        "PATROL_ALLOW_HOSTS": " git.example:443, ,10.0.0.0/8 ",
        "PATROL_PATTERNS": "a.toml,b",
        "PATROL_DATABASE_URL": "sqlite:////srv/patrol.db",
        "PATROL_BROKER_URL": "redis://broker.example/0",
        "PATROL_LEASE_SECONDS": "2.5",
        "PATROL_NOBODY_KNOWS_THIS": "x",
    }
    settings = load_settings()
    assert (settings.port, settings.lease_seconds) == (9000, 2.5)
    assert settings.smtp == "smtp://mail.example:25"
    assert settings.base_url == "https://patrol.example"
    assert settings.allow_hosts == ("git.example:443", "10.0.0.0/8")
    assert settings.patterns == (Path("a.toml"), Path("b"))
    assert settings.database == "sqlite:////srv/patrol.db"
    assert not settings.is_embedded_broker


def test_overrides_go_before_files_and_files_before_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "host"
    file.write_text("from-file\n")
    os.environ["PATROL_HOST"] = "from-environment"
    assert load_settings().host == "from-environment"
    os.environ["PATROL_HOST_FILE"] = str(file)
    assert load_settings().host == "from-file"
    assert load_settings({"host": "from-caller"}).host == "from-caller"


def test_the_issuers_own_patterns_are_found(tmp_path: Path) -> None:
    os.environ["PATROL_PATTERNS"] = "own.toml"
    assert load_settings().own_patterns == (Path("own.toml"),)
    local = tmp_path / "data" / "patterns"
    local.mkdir(parents=True)
    assert load_settings().own_patterns == (Path("own.toml"),)  # an empty folder holds none
    (local / "x.toml").touch()
    assert load_settings().own_patterns == (Path("own.toml"), local)
    os.environ["PATROL_HOST"] = "::1"
    assert load_settings().base_url == "http://[::1]:8080"


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_secret_comes_from_a_file_without_its_line_end(tmp_path: Path, ending: str) -> None:
    file = tmp_path / "peppers"
    file.write_bytes(f"p2:{GOOD}x,p1:{GOOD}y{ending}".encode())
    os.environ["PATROL_PEPPERS_FILE"] = str(file)
    settings = load_settings()
    assert [(key.id, key.value) for key in settings.pepper_ring] == [
        ("p2", f"{GOOD}x".encode()), ("p1", f"{GOOD}y".encode()),
    ]  # fmt: skip
    assert not settings.secret_file("peppers").exists()


def test_every_setting_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "value"
    values = {
        "hooks": json.dumps([{"id": "a", "secrets": [GOOD]}]), "port": "81", "data_dir": "d",
        "smtp_port": "82", "mail_port": "83", "fetch_max_bytes": "2048", "fetch_timeout": "1",
        "inspect_timeout": "2", "lease_seconds": "3", "max_attempts": "4", "max_retries": "0",
        "github_url": "https://git.example", "public_url": "https://patrol.example",
        "broker_url": "redis://redis.example", "operator_email": "ops@patrol.example",
        "body_timeout": "5", "ready_lag_seconds": "6", "ready_grace_seconds": "7",
        "min_free_bytes": "8", "seal_days": "9", "unknown_days": "30",
        "task_seconds": "400", "stop_seconds": "9", "worker_max_memory_mb": "500",
        "worker_max_tasks": "50", "metrics_open": "true", "metrics_port": "9100",
        "log_format": "json", "log_level": "DEBUG",
        "ledger_url": "rediss://redis.example", "ledger_days": "7", "ledger_rows": "10",
        "lookups_per_minute": "500",
    }  # fmt: skip
    for name in Settings.model_fields:
        file.write_text(values.get(name, "text") + "\n")
        os.environ[f"PATROL_{name.upper()}_FILE"] = str(file)
        assert getattr(load_settings(), name) != Settings.model_fields[name].default
        del os.environ[f"PATROL_{name.upper()}_FILE"]


@pytest.mark.parametrize(
    ("broker", "ledger", "expected"),
    [
        (None, None, None),
        ("amqp://mq.example", None, None),
        ("redis+socket:///run/redis", None, None),
        ("redis://a.example/1", None, "redis://a.example/1"),
        ("rediss://a.example", None, "rediss://a.example"),
        ("redis://a.example", "redis://b.example", "redis://b.example"),
        ("redis://a.example", "", None),
        (None, "redis://b.example", "redis://b.example"),
    ],
)
def test_the_blob_ledgers_copy_is_in_a_redis(
    broker: str | None, ledger: str | None, expected: str | None
) -> None:
    given = {"PATROL_BROKER_URL": broker, "PATROL_LEDGER_URL": ledger}
    os.environ.update({name: value for name, value in given.items() if value is not None})
    access = of_ledger(load_settings())
    assert (None if access is None else access.url) == expected


def test_two_servers_cannot_share_a_port() -> None:
    os.environ["PATROL_MAIL_PORT"] = "8080"
    assert "must differ" in refusal(load_settings)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff" + HUSH.encode())
    missing = tmp_path / HUSH  # where a name is expected, the secret itself stands
    for path, why in (
        (missing, "No such file or directory"), (tmp_path, "Is a directory"), (binary, "not text"),
    ):  # fmt: skip
        os.environ["PATROL_API_TOKEN_FILE"] = str(path)
        said = refusal(load_settings)
        assert said.startswith("PATROL_API_TOKEN_FILE: the file cannot be read (")
        assert why in said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATA_DIR", ""), ("GITHUB_URL", HUSH), ("PUBLIC_URL", "ftp://" + HUSH), ("PORT", "0"),
        ("OPERATOR_EMAIL", HUSH), ("OPERATOR_EMAIL", ""), ("OPERATOR_EMAIL", "a@b, c@d"),
        ("OPERATOR_EMAIL", "Ops <a@b>"), ("OPERATOR_EMAIL", "a@b\nBcc: c@d"), ("LOG_LEVEL", HUSH),
        ("LOG_FORMAT", "xml"), ("BODY_TIMEOUT", "0"), ("READY_LAG_SECONDS", "0"),
        ("BROKER_URL", HUSH), ("PORT", HUSH), ("PORT", "-1"),
        ("LEDGER_URL", HUSH), ("LEDGER_URL", "http://" + HUSH), ("LEDGER_DAYS", "0"),
        ("LEDGER_ROWS", "0"), ("LOOKUPS_PER_MINUTE", "499"),
        ("PORT", "65536"), ("PORT", ""), ("SMTP_PORT", "8.5"),
        ("MAIL_PORT", "0x50"), ("FETCH_MAX_BYTES", "1023"), ("FETCH_MAX_BYTES", "1GB"),
        ("FETCH_TIMEOUT", "0"), ("FETCH_TIMEOUT", "nan"), ("INSPECT_TIMEOUT", "inf"),
        ("LEASE_SECONDS", "inf"), ("LEASE_SECONDS", "-0.1"), ("MAX_ATTEMPTS", "0"),
        ("MAX_RETRIES", "-1"), ("HOOKS", HUSH), ("HOOKS", "5"), ("HOOKS", '"x"'), ("HOOKS", "[5]"),
        ("HOOKS", "null"), ("HOOKS", ""), ("HOOKS", '[{"id": "a"}]'),
        ("HOOKS", f'[{{"id": "a", "secrets": "{HUSH}"}}]'),
        ("HOOKS", f'[{{"id": "a", "secrets": ["{HUSH}", 5]}}]'),
        ("HOOKS", f'[{{"id": "a", "secrets": ["{HUSH}", "{HUSH}", "{HUSH}"]}}]'),
        ("HOOKS", '[{"id": "a", "secrets": []}]'),
        ("HOOKS", f'[{{"id": 5, "secrets": ["{HUSH}"]}}]'),
        ("HOOKS", f'[{{"id": "a", "secrets": ["{GOOD}"], "{HUSH}": 1}}]'),
        ("HOOKS", f'{{"id": "a", "secrets": ["{HUSH}"]}}'),
    ],
)  # fmt: skip
def test_a_wrong_value_is_one_sentence_that_names_the_setting(name: str, value: str) -> None:
    os.environ[f"PATROL_{name}"] = value
    said = refusal(load_settings)
    assert re.fullmatch(rf"PATROL_{name}: [^.]+\.", said)
    assert not (len(value) > 3 and value in said)


def test_what_is_wrong_is_said_in_words_of_ours() -> None:
    os.environ["PATROL_HOOKS"] = HUSH
    assert refusal(load_settings) == "PATROL_HOOKS: it is not valid JSON."


def test_hooks_of_ones_own() -> None:
    os.environ["PATROL_GITHUB_WEBHOOK_SECRET"] = f"{GOOD}-new, {GOOD}-old"
    os.environ["PATROL_GITHUB_HOOK_REPOSITORIES"] = "acme/*,contoso/app"
    os.environ["PATROL_HOOKS"] = json.dumps(
        [{"id": "partner", "secrets": [f"{GOOD}-p"], "repositories": ["partner/*"]}]
    )
    default, partner = load_settings().all_hooks
    assert (default.id, default.repositories) == ("default", ("acme/*", "contoso/app"))
    assert [secret.get_secret_value() for secret in default.secrets] == [
        f"{GOOD}-new", f"{GOOD}-old",
    ]  # fmt: skip
    assert (partner.id, partner.provider, partner.repositories) == (
        "partner", "github", ("partner/*",),
    )  # fmt: skip
    assert isinstance(partner, Hook)


@pytest.mark.parametrize("ids", [["a", "a"], ["default"]])
def test_two_hooks_of_one_name_are_refused(ids: list[str]) -> None:
    """A push is known by its hook and its body: two hooks of one name would share pushes."""
    os.environ["PATROL_HOOKS"] = json.dumps([{"id": name, "secrets": [GOOD]} for name in ids])
    assert refusal(lambda: load_settings().all_hooks).startswith("PATROL_HOOKS: ")


def test_more_than_two_webhook_secrets_are_refused() -> None:
    os.environ["PATROL_GITHUB_WEBHOOK_SECRET"] = ",".join(f"{GOOD}{n}" for n in range(3))
    said = refusal(lambda: load_settings().all_hooks)
    assert said.startswith("PATROL_GITHUB_WEBHOOK_SECRET may hold two")


WEAK = [
    "", ",", "changeme", "change-me", "secret", "password", "test", "example", "Passw0rd!",
    GOOD[:-1], "changeme-changeme", "Change_Me-Change_Me", "secret-secret-secret",
    "password1234567890", "test.example.test.example", "a" * 40, "abab" * 10, "0" * 64,
]  # fmt: skip
SECRETS: dict[str, tuple[str, Callable[[Settings], Any]]] = {
    "PATROL_PEPPERS": ("k1:{}", lambda settings: settings.pepper_ring),
    "PATROL_SEAL_KEYS": ("k1:{}", lambda settings: settings.seal_ring),
    "PATROL_FINGERPRINT_KEYS": ("k1:{}", lambda settings: settings.fingerprint_ring),
    "PATROL_API_TOKEN": ("{}", lambda settings: settings.api_bearer),
    "PATROL_GITHUB_WEBHOOK_SECRET": ("{}", lambda settings: settings.all_hooks),
    "PATROL_HOOKS": (
        '[{{"id": "a", "secrets": ["{}"]}}]', lambda settings: settings.all_hooks,
    ),
}  # fmt: skip


@pytest.mark.parametrize("weak", WEAK)
@pytest.mark.parametrize("name", SECRETS)
def test_default_and_short_secrets_are_refused(name: str, weak: str) -> None:
    shape, use = SECRETS[name]
    os.environ[name] = shape.format(weak)
    said = refusal(lambda: use(load_settings()))
    assert said.startswith(name)
    assert len(weak) < 8 or weak not in said


@pytest.mark.parametrize("name", SECRETS)
def test_a_strong_secret_is_taken(name: str) -> None:
    shape, use = SECRETS[name]
    for strong in (GOOD, GOOD.upper(), "correct:horse:battery", f"{GOOD}/+=", "0123456789" * 2):
        os.environ[name] = shape.format(strong)
        assert use(load_settings())


@pytest.mark.parametrize(
    ("ring", "why"),
    [
        (GOOD, "must be id:key"),
        (f":{GOOD}", "must be id:key"),
        (f"k1:{GOOD},", "must be id:key"),
        (f"k1:{GOOD},{GOOD}", "must be id:key"),
        ("k1:", "must be id:key"),
        (f"k1:{GOOD},k1:{GOOD}x", "one key id twice"),
    ],
)
def test_a_ring_of_another_shape_is_refused(ring: str, why: str) -> None:
    for name, use in (
        ("PATROL_PEPPERS", lambda settings: settings.pepper_ring),
        ("PATROL_SEAL_KEYS", lambda settings: settings.seal_ring),
    ):
        os.environ[name] = ring
        said = refusal(lambda use=use: use(load_settings()))
        assert said.startswith(name)
        assert why in said
        assert GOOD not in said


def test_a_ring_keeps_its_order_and_the_colons_of_its_keys() -> None:
    os.environ["PATROL_PEPPERS"] = f" k2:a:{GOOD} , k1:{GOOD} "
    assert tuple(load_settings().pepper_ring) == (
        Key("k2", f"a:{GOOD}".encode()), Key("k1", GOOD.encode()),
    )  # fmt: skip


def test_neither_settings_nor_keys_show_a_secret() -> None:
    for name, (shape, _) in SECRETS.items():
        os.environ[name] = shape.format(HUSH)
    os.environ["PATROL_SMTP_URL"] = f"smtp://ada:{HUSH}@mail.example"
    os.environ["PATROL_DATABASE_URL"] = f"sqlite:///{HUSH}.db"
    os.environ["PATROL_BROKER_URL"] = f"redis://:{HUSH}@broker.example"
    settings = load_settings()
    for _, use in SECRETS.values():
        assert use(settings)
    assert HUSH in settings.smtp
    assert HUSH in settings.database
    shown = [repr(settings), str(settings), repr(settings.pepper_ring), repr(settings.all_hooks)]
    shown += [repr(settings.model_dump()), settings.model_dump_json(), f"{settings.pepper_ring}"]
    assert [text for text in shown if HUSH in text] == []
