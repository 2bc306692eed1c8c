"""`status`, `report` and `dashboard`: looking at a search, also while it runs. They only read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from headsearch.commands import common
from headsearch.errors import require

app = typer.Typer()


@app.command(epilog="Example:  headsearch status runs/digits   |   watch -n 5 headsearch status runs/digits")
def status(run: common.RunPath, output: common.ReportOutput = "table") -> None:
    """Show the progress of a search: its stage, what runs now, the best heads so far, and the time left."""
    import json

    from headsearch.report.status import status_data, status_panel
    from headsearch.runs.run import look_at

    view = look_at(run)
    if output == "json":
        typer.echo(json.dumps(status_data(view), indent=2, allow_nan=False))
    else:
        common.console().print(status_panel(view))


@app.command(
    epilog="Example:  headsearch report runs/digits --out digits.html   |   headsearch report runs/digits --format md"
)
def report(
    run: common.RunPath,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The file to write. Default: report.html or report.md in the run directory; - prints it."
        ),
    ] = None,
    output: Annotated[
        Literal["html", "md"],
        typer.Option("--format", help="html: one file that opens offline. md: for a pull request."),
    ] = "html",
) -> None:
    """Write the results of a run as one file that you can send."""
    require("dash", extra="dashboard", where="a report")
    from headsearch.files import write_result
    from headsearch.runs.run import look_at

    view = look_at(run)
    if output == "md":
        from headsearch.report.markdown import markdown_report

        text = markdown_report(view)
    else:
        from headsearch.report.page import html_report

        text = html_report(view)
    if out == Path("-"):
        typer.echo(text, nl=False)
        return
    target = out or run / f"report.{output}"
    write_result(target, text)
    typer.echo(f"{target}: {len(text.encode()) / 1e6:.1f} MB", err=True)
    common.tell_problems(view)


@app.command(
    epilog="Examples:  headsearch dashboard runs/digits   |   headsearch dashboard runs/* --port 8060   |   "
    "from another machine:  ssh -L 8050:127.0.0.1:8050 HOST"
)
def dashboard(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run directories, as made by headsearch run.")
    ],
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")
    ] = 8050,
    host: Annotated[
        str,
        typer.Option(help="Address to listen on. An address that other machines can reach needs a token."),
    ] = "127.0.0.1",
    token: Annotated[
        str | None,
        typer.Option(
            help="Token that every request must carry. Default: none on this machine, otherwise a random one."
        ),
    ] = None,
    prefix: Annotated[
        str,
        typer.Option(help="Path of the dashboard behind a reverse proxy, e.g. /headsearch/."),
    ] = "/",
) -> None:
    """Show runs in a browser, also while they are running. Only reads them."""
    require("dash", extra="dashboard", where="the dashboard")
    from headsearch.dashboard.server import open_server

    server, address = open_server(runs, host=host, port=port, token=token, prefix=prefix)
    typer.echo(f"headsearch dashboard at {address.url}  (Ctrl-C ends it)", err=True)
    try:
        server.run()
    finally:
        server.close()
