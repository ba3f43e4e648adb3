"""How we show a token service who we are: a bearer token, client credentials, a signature, a
certificate."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote_plus

import httpx2

from scanner.errors import ConfigurationError, StoreUnavailableError
from scanner.keyring import read_secret, require_strong
from scanner.stores.http_config import BasicAuth, BearerAuth, HmacAuth, NoAuth, Tls

_SCHEME = "patrol-hmac-v1"
Clock = Callable[[], float]
Nonce = Callable[[], str]


def signature(key: bytes, timestamp: int, nonce: str, method: str, target: str, body: bytes) -> str:
    """Return "v1=" and the hex HMAC-SHA256 over scheme, timestamp (seconds since 1970), nonce,
    method, target (path and query as sent) and the body's hex SHA-256, a line each."""
    lines = (_SCHEME, str(timestamp), nonce, method, target, hashlib.sha256(body).hexdigest())
    return "v1=" + hmac.new(key, "\n".join(lines).encode(), hashlib.sha256).hexdigest()


class SecretFile:
    """A secret that is read from its file when needed, so that it can rotate; checked once."""

    def __init__(self, path: Path, key: str) -> None:
        self._path = path
        self._key = key
        require_strong(self._text(), f"{key}: what is in the file")

    def read(self) -> str:
        """Return the secret. Errors: `StoreUnavailableError`."""
        try:
            return self._text()
        except ConfigurationError as error:
            raise StoreUnavailableError(str(error)) from None

    def _text(self) -> str:
        text = read_secret(self._path, f"{self._key}: the file {self._path}").strip()
        if not re.fullmatch(r"[\x20-\x7e]*", text):
            raise ConfigurationError(f"{self._key}: the file {self._path} is not one line of text.")
        return text


class Signer:
    """Makes the headers that say who asks; anew for each attempt."""

    def __init__(
        self,
        auth: NoAuth | BearerAuth | BasicAuth | HmacAuth,
        clock: Clock = time.time,
        nonce: Nonce = lambda: secrets.token_hex(16),
    ) -> None:
        self._auth = auth
        self._clock = clock
        self._nonce = nonce
        self._secret: SecretFile | None = None
        if isinstance(auth, BearerAuth):
            self._secret = SecretFile(auth.bearer_file, "auth.bearer_file")
        elif isinstance(auth, BasicAuth):
            self._secret = SecretFile(auth.client_secret_file, "auth.client_secret_file")
        elif isinstance(auth, HmacAuth):
            self._secret = SecretFile(auth.key_file, "auth.key_file")

    def headers(self, method: str, url: str, body: bytes) -> Mapping[str, str]:
        """Return the headers of one request. Errors: `StoreUnavailableError`."""
        auth, secret = self._auth, self._secret
        if secret is None or isinstance(auth, NoAuth):
            return {}
        if isinstance(auth, BearerAuth):
            return {auth.header: f"{auth.scheme} {secret.read()}".strip()}
        if isinstance(auth, BasicAuth):
            pair = f"{quote_plus(auth.client_id)}:{quote_plus(secret.read())}"
            return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
        timestamp, nonce = int(self._clock()), self._nonce()
        target = httpx2.URL(url).raw_path.decode("ascii")
        key = secret.read().encode()
        return {
            auth.key_header: auth.key_id,
            auth.timestamp_header: str(timestamp),
            auth.nonce_header: nonce,
            auth.signature_header: signature(key, timestamp, nonce, method, target, body),
        }


def tls_context(tls: Tls) -> ssl.SSLContext | None:
    """Return what the files say, or None for the usual. Errors: `ConfigurationError`."""
    if tls.ca_file is None and tls.client_cert_file is None:
        return None
    try:
        if tls.ca_file is None:
            context = httpx2.create_ssl_context(trust_env=False)
        else:
            context = ssl.create_default_context(cafile=tls.ca_file)
    except OSError:  # an SSLError, too
        raise ConfigurationError(f"tls.ca_file: {tls.ca_file} holds no certificates.") from None
    if tls.client_cert_file is not None:
        try:
            context.load_cert_chain(tls.client_cert_file, tls.client_key_file, password="")
        except (OSError, ValueError):
            raise ConfigurationError(
                f"tls.client_cert_file: {tls.client_cert_file} and tls.client_key_file are no "
                "certificate and its key without a password."
            ) from None
    return context
