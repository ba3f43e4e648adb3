"""The command line. Commands live in scanner/commands/ and load when they are called."""

from __future__ import annotations

import importlib
import sys

import click

from scanner import __version__
from scanner.errors import PatrolError

_COMMANDS = {  # name -> (module, one line of help); read without importing anything heavy
    "up": ("service", "web, worker, beat, broker and mail catcher in one command"),
    "demo": ("demo", "leak a token in a real push and watch it found, revoked, mailed"),
    "scan": ("scan", "find tokens in a folder, a git repository or standard input"),
    "patterns": ("patterns", "list and test token patterns"),
    "tokens": ("tokens", "issue, list, show and revoke tokens of the built-in store"),
    "policy": ("policy", "show and set what happens to a leaked token"),
    "leaks": ("leaks", "list and show leaks"),
    "audit": ("audit", "list and verify the audit trail"),
    "watch": ("watch", "repositories that are scanned on a schedule"),
    "web": ("service", "run the web process"),
    "worker": ("service", "run a worker"),
    "beat": ("service", "run the scheduler (one instance)"),
    "mail": ("service", "run the embedded mail catcher"),
    "db": ("database", "upgrade the database"),
    "doctor": ("doctor", "check every connection and say what to do"),
}


class _Map(click.Group):
    def list_commands(self, _context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module = importlib.import_module(f"scanner.commands.{_COMMANDS[name][0]}")
        command: click.Command = getattr(module, name)
        return command

    def format_commands(self, _context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.command(cls=_Map)
@click.version_option(__version__, prog_name="patrol")
def cli() -> None:
    """End token leaks: found in a push, proved, revoked, mailed, audited."""


def main() -> None:
    """Run the command; our own errors are one sentence and exit code 2."""
    try:
        # Outside standalone mode click returns the code of ctx.exit() instead of raising it.
        code = cli.main(prog_name="patrol", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except PatrolError as error:
        click.echo(f"patrol: {error}", err=True)
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
