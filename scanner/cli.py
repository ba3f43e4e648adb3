"""The command line. Commands live in scanner/commands/ and load when they are called."""

from __future__ import annotations

import importlib
import io
import resource
import sys
from collections.abc import Sequence

import click

from scanner import __version__
from scanner.errors import PatrolError

# group -> name -> (module, one line of help); read without importing anything heavy
_GROUPS = {
    "Start here": {
        "demo": ("demo", "leak a token in a real push; watch it found, revoked, mailed"),
        "up": ("service", "web, worker, beat, broker and mail catcher in one command"),
        "doctor": ("doctor", "check every connection and say what to do"),
    },
    "Look": {
        "scan": ("scan", "find tokens in a folder, a git repository or a pipe"),
        "patterns": ("patterns", "list and test token patterns"),
        "leaks": ("leaks", "list and show leaks"),
        "audit": ("audit", "list and verify the audit trail"),
    },
    "Decide": {
        "tokens": ("tokens", "issue, rotate, revoke and import tokens of the built-in store"),
        "owners": ("owners", "people and bots that have tokens"),
        "organisations": ("organisations", "organisations, and who is told of their leaks"),
        "policy": ("policy", "show and set what happens to a leaked token"),
        "keys": ("keys", "list and rotate the keys of digests, fingerprints and seals"),
        "watch": ("watch", "repositories that are scanned on a schedule"),
    },
    "Run": {
        "web": ("service", "take webhooks, serve the API"),
        "worker": ("worker", "do the work"),
        "beat": ("service", "start what is due (one instance)"),
        "healthcheck": ("healthcheck", "is the process in this container well?"),
        "mail": ("service", "catch mail and show it on a page"),
        "db": ("database", "upgrade the database, or move to another"),
    },
}
_COMMANDS = {name: module for group in _GROUPS.values() for name, (module, _) in group.items()}


class _Map(click.Group):
    def list_commands(self, _context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module = importlib.import_module(f"scanner.commands.{_COMMANDS[name]}")
        command: click.Command = getattr(module, name)
        return command

    def format_commands(self, _context: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, _COMMANDS))
        for title, group in _GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), text) for name, (_, text) in group.items()])


@click.command(cls=_Map)
@click.version_option(__version__, prog_name="patrol")
def cli() -> None:
    """End token leaks: found in a push, proved, revoked, mailed, audited."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command (by default, of this process); errors are one sentence and exit code 2."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Not every terminal can show what a mask or a name holds.
        sys.stdout.reconfigure(errors="backslashreplace")
    _forbid_core_dumps()
    try:
        # Outside standalone mode click returns the code of ctx.exit() instead of raising it.
        code = cli.main(arguments, prog_name="patrol", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except PatrolError as error:
        click.echo(f"patrol: {error}", err=True)
        sys.exit(2)
    except Exception as error:
        # Loaded only now: the command line starts without the weight of a database.
        said = importlib.import_module("scanner.commands.common").trouble(error)
        if said is None:
            raise
        click.echo(f"patrol: {said}", err=True)
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)


def _forbid_core_dumps() -> None:
    """A crash must not write keys and tokens to a disk, here or in any child.

    One byte, not none: a limit of 0 does not keep Linux from piping a dump to a collector, 1 does
    (fs/coredump.c), and no file is that small.
    """
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    limit = 1 if most == resource.RLIM_INFINITY else min(1, most)
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


if __name__ == "__main__":
    main()
