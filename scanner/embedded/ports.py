"""Ports: a taken one is one clear sentence, before anything is started."""

from __future__ import annotations

import errno
import socket

from scanner.errors import ConfigurationError


def check_port_free(host: str, port: int, setting: str) -> None:
    """Raise `ConfigurationError` when somebody listens there already."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
                raise ConfigurationError(
                    f"{host} is no address of this machine; set PATROL_HOST to one that is."
                ) from None
            raise ConfigurationError(
                f"Port {port} on {host} cannot be used ({error.strerror}); "
                f"set {setting} to a free one."
            ) from None
