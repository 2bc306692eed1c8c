"""The command line: its commands, and how it ends. The names of commands and options are a promise.

Everything heavy is imported inside the commands, so that `--help`, `rank`, `space` and `export` answer at once.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any, NoReturn

import typer

from headsearch.commands import audit, evaluate, pretrain, results, search, watching, zero_cost
from headsearch.commands.reproduce import reproduce_app
from headsearch.commands.space import space_app
from headsearch.errors import HeadsearchError, UserError
from headsearch.signals import exit_code, like_ctrl_c

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
app.add_typer(audit.app)
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

    try:
        with like_ctrl_c():
            code: Any = app(standalone_mode=False)
    except UserError as error:
        _leave(str(error), 2)
    except TyperException as error:
        _leave(error.format_message(), 2)
    except HeadsearchError as error:
        _leave(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        _leave("interrupted", exit_code())
    except BrokenPipeError:
        # The reader of a pipe has gone (`headsearch rank RUN | head`): nothing is wrong.
        sys.stderr.close()
        sys.exit(0)
    sys.exit(code if isinstance(code, int) else 0)


def _leave(message: str, code: int) -> NoReturn:
    typer.echo(f"headsearch: {' '.join(message.split())}", err=True)
    sys.exit(code)
