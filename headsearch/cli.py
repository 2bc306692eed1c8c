"""The command line: its commands, and how it ends. The names of commands and options are a promise.

Everything heavy is imported inside the commands, so that `--help`, `rank`, `space` and `export` answer at once.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
import sys
import traceback
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TextIO

import typer

from headsearch.commands import evaluate, pretrain, results, search, watching, zero_cost
from headsearch.commands.reproduce import reproduce_app
from headsearch.commands.space import space_app
from headsearch.document import shorten
from headsearch.errors import HeadsearchError, UserError
from headsearch.secrecy import redacted
from headsearch.signals import exit_code, like_ctrl_c

if TYPE_CHECKING:
    from typer.exceptions import TyperException

_LONGEST = 2_000
"""Characters of a message; a file may hold names of any length."""

app = typer.Typer(
    name="headsearch",
    help="Find the auxiliary head that makes a base vision model better, before anyone pays for pretraining.",
    epilog="Start here: [bold]headsearch run[/bold] searches on the embedded digits; [bold]headsearch init[/bold] writes files to edit.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.add_typer(search.app)
app.add_typer(results.app)
app.add_typer(watching.app)
app.add_typer(pretrain.app)
app.add_typer(evaluate.app)
space_app.add_typer(zero_cost.app)
app.add_typer(space_app, name="space")
app.add_typer(reproduce_app, name="reproduce")


def _version(wanted: bool) -> None:
    if wanted:
        from headsearch import __version__

        typer.echo(f"headsearch {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> NoReturn:
    """The entry point: bad input is one line on stderr and exit code 2."""
    from typer.exceptions import TyperException

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that lacks a character gets its number, and no traceback.
            stream.reconfigure(errors="backslashreplace")
    try:
        with like_ctrl_c():
            code: Any = app([_expanded(argument) for argument in sys.argv[1:]], standalone_mode=False)
            if sys.stdout is not None:
                sys.stdout.flush()
    except UserError as error:
        _leave(str(error), 2)
    except TyperException as error:
        message = error.format_message().replace("Value error, ", "") + _keys(error)
        # A command without arguments has explained itself on stdout, and there is nothing left to say.
        sys.exit(2) if not message else _leave(message, 2)
    except HeadsearchError as error:
        _leave(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        _leave("interrupted", exit_code())
    except (BrokenPipeError, SystemExit):
        # The reader of a pipe has gone (`headsearch rank RUN | head`), which rich turns into an exit. Nothing is wrong, unless it read of progress.
        _discard_output()
        sys.exit(128 + signal.SIGPIPE if sys.stderr and _has_no_reader(sys.stderr) else 0)
    except OSError as error:
        # The disk behind `> file` is full.
        _discard_output()
        _leave(str(error), 1)
    except Exception:  # noqa: BLE001 - a fault of ours
        # Whoever mends it needs to see where, and nobody the passwords.
        typer.echo(redacted(traceback.format_exc()), err=True)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _expanded(argument: str) -> str:
    """An argument with `~` as the home directory, also where the shell leaves it: in quotes, and in `--out=~/x`."""
    option, separator, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    return option + separator + os.path.expanduser(value)  # noqa: PTH111, Path's raises where there is no such user


def _keys(error: TyperException) -> str:
    """What to add where an option is not known of a command that takes keys."""
    context = getattr(error, "ctx", None)
    takes_keys = context is not None and any("--set" in option.opts for option in context.command.params)
    return "; keys are given by --set KEY=VALUE" if takes_keys and hasattr(error, "option_name") else ""


def _has_no_reader(stream: TextIO) -> bool:
    """Whether a stream is a pipe that nobody reads any more."""
    poll = select.poll()
    poll.register(stream, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _discard_output() -> None:
    """Keep what is still in the buffer from failing once more when Python ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _leave(message: str, code: int) -> NoReturn:
    typer.echo(f"headsearch: {shorten(redacted(message[: 4 * _LONGEST]), _LONGEST)}", err=True)
    sys.exit(code)
