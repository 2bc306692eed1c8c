"""`status` and `report` as people meet them."""

import json
from pathlib import Path

import pytest
from forked import headsearch
from typer.testing import CliRunner

from headsearch.cli import app
from headsearch.errors import RunError

runner = CliRunner()


def test_status_as_json_is_json_alone(toy_run: Path) -> None:
    result = headsearch("status", toy_run, "--format", "json")
    assert result.stderr == ""
    assert json.loads(result.stdout)["condition"] == "ended"


def test_status_for_people(toy_run: Path) -> None:
    result = runner.invoke(app, ["status", str(toy_run)])
    assert result.exit_code == 0
    assert "finished" in result.stdout


@pytest.mark.parametrize(("kind", "start"), [("html", "<!doctype html>"), ("md", "# mixed")])
def test_a_report_is_written_whole(kind: str, start: str, toy_run: Path, tmp_path: Path) -> None:
    out = tmp_path / f"mine.{kind}"
    result = runner.invoke(app, ["report", str(toy_run), "--format", kind, "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert out.read_text(encoding="utf-8").startswith(start)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_a_report_goes_to_stdout_when_asked(toy_run: Path) -> None:
    assert runner.invoke(app, ["report", str(toy_run), "--format", "md", "--out", "-"]).stdout.startswith(
        "# mixed"
    )


@pytest.mark.parametrize("command", ["status", "report", "dashboard"])
def test_no_run_is_refused(command: str, tmp_path: Path) -> None:
    result = runner.invoke(app, [command, str(tmp_path / "nothing")])
    assert isinstance(result.exception, RunError)
    assert "no such run directory" in str(result.exception)
