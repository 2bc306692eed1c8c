"""`audit`: can the ranking be trusted?"""

from __future__ import annotations

import typer

from headsearch.commands.common import ReportOutput, RunPath, console, tell_problems

app = typer.Typer()


@app.command(epilog="Example:  headsearch audit runs/digits --format json > audit.json")
def audit(run: RunPath, output: ReportOutput = "table") -> None:
    """Check how far the ranking of a run can be trusted, by comparing its stages, rungs, seeds and measures."""
    from headsearch.results.audit_tables import audit_json, section_table
    from headsearch.runs.reading import read_run

    held = read_run(run)
    tell_problems(held)
    found = held.audit
    if output == "json":
        typer.echo(audit_json(found))
        return
    out = console()
    for section in found.sections:
        out.print(f"[bold]{section.question}[/bold]")
        table = section_table(section)
        if table is not None:
            out.print(table)
        out.print(section.conclusion, markup=False)
        out.print()
