"""What is shown while a search runs: the toy objective with the real coordinator, and a console that remembers."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from headsearch.commands import progress
from headsearch.commands.progress import BarDisplay, LineDisplay
from headsearch.search.session import conduct
from headsearch.testing.toy_search import toy_experiment, toy_materials


def shown(display_class: type[BarDisplay] | type[LineDisplay], out: Path, *, resume: bool = False) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=display_class is BarDisplay, width=160, highlight=False)
    experiment = toy_experiment()
    with display_class(console) as display:
        conduct(experiment, toy_materials(experiment), out, resume=resume, observer=display)
    return stream.getvalue()


def test_lines_tell_every_trial_its_scores_and_what_is_left(tmp_path: Path) -> None:
    text = shown(LineDisplay, tmp_path / "run")
    assert "control none starts" in text
    assert "trial 0: control none done" in text
    assert "k-NN" in text
    assert "left)" in text
    assert "\x1b" not in text, "plain where there is no terminal"


def test_a_log_is_told_that_a_long_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not re.search(r" of \d+: loss", shown(LineDisplay, tmp_path / "short"))
    monkeypatch.setattr(progress, "SILENCE", 0.0)
    text = shown(LineDisplay, tmp_path / "long")
    assert re.search(r"trial 0: epoch 1\.0 of \d+: loss \d\.\d{3}, [\d,]+ images/s\n", text)


def test_lines_say_when_a_search_goes_on(tmp_path: Path) -> None:
    shown(LineDisplay, tmp_path / "run")
    assert "resuming: " in shown(LineDisplay, tmp_path / "run", resume=True)


def test_bars_leave_a_line_for_every_trial_that_ended(tmp_path: Path) -> None:
    text = shown(BarDisplay, tmp_path / "run")
    assert "trial 0: control none done" in text
    assert "search" in text
