"""The group of all commands, and the one place where errors become a line and an exit status."""

from __future__ import annotations

import io
import os
import sys
from importlib import import_module
from typing import NoReturn

import click

import tertulia as package
from tertulia.errors import AgentError, ApprovalPending

FAILED = 2
INTERRUPTED = 130

EPILOG = """\
The store of a command is its --store, else that of `tertulia --store`, else TERTULIA_STORE, else
tertulia.db in your data folder. It is named on the first line, on standard error.
"""


COMMANDS = {
    "chat": "chat",
    "serve": "serving",
    "connect": "connecting",
    "sessions": "listing",
    "show": "inspecting",
    "tail": "inspecting",
    "usage": "counting",
    "export": "copying",
    "fork": "copying",
    "verify": "proving",
    "anchor": "proving",
    "keygen": "proving",
    "prune": "changing",
    "rewind": "changing",
    "pending": "approving",
    "approve": "approving",
    "reject": "approving",
    "swarm": "drawing",
    "bans": "banning",
    "ban": "banning",
    "unban": "banning",
    "end": "changing",
    "reopen": "changing",
    "unlock": "unlocking",
    "erase": "erasing",
    "sweep": "erasing",
    "backup": "upkeep",
    "restore": "upkeep",
    "doctor": "upkeep",
    "migrate": "migrating",
    "move": "moving",
    "cluster": "cluster",
}
"""The module of each command, which is imported when the command is called."""


class Door(click.Group):
    """The group; whatever a command raises on purpose leaves it as one line and a status."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command by its name."""
        if cmd_name not in COMMANDS:
            return None
        return getattr(import_module(f"tertulia.cli.{COMMANDS[cmd_name]}"), cmd_name)

    def invoke(self, ctx: click.Context) -> None:
        """Run a command. Broken pipes are quiet, and Ctrl-C is no crash."""
        try:
            super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            _leave_pipe()
            ctx.exit(0)
        except (KeyboardInterrupt, click.Abort):
            click.echo(err=True)
            ctx.exit(INTERRUPTED)
        except ApprovalPending as error:
            _fail(ctx, _advice(error))
        except AgentError as error:
            _fail(ctx, str(error))
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            _fail(ctx, f"{place}{error.strerror or error}")


def _advice(error: ApprovalPending) -> str:
    """What can be done on this side of the library."""
    name = error.session_id
    return (
        f"a turn of session {name!r} waits for an approval: `tertulia pending {name}` shows which "
        f"call, approve or reject it; or `tertulia unlock {name}` closes the turn"
    )


def _fail(ctx: click.Context, text: str) -> NoReturn:
    click.echo(f"error: {' '.join(text.split())}", err=True)
    ctx.exit(FAILED)


def _leave_pipe() -> None:
    """Nobody reads our output any more; let the flush at the end of the process go nowhere."""
    try:
        target = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, target)
    os.close(nowhere)


@click.group(
    cls=Door,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package.__version__, prog_name="tertulia", message="%(prog)s %(version)s")
@click.option("--store", metavar="URL", help="The store that the command works on.")
def tertulia(store: str | None) -> None:
    """Durable sessions for AI agents: talk, look inside, prove, keep, erase."""
    del store  # the commands look it up
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def main() -> NoReturn:
    """The program `tertulia`."""
    tertulia(prog_name="tertulia")
    raise SystemExit(0)
