"""What is shown while a search runs: the toy objective with the real coordinator, and a console that remembers."""

import io
import re
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from headsearch.commands import progress
from headsearch.commands.progress import LineDisplay, progress_display
from headsearch.heads.candidate import Candidate
from headsearch.heads.config import HeadConfig
from headsearch.search.observer import SearchStatus
from headsearch.search.session import conduct
from headsearch.testing.toy_search import toy_experiment, toy_materials
from headsearch.training.trial import RungScores, Training, Trial


def shown(out: Path, *, terminal: bool = False, resume: bool = False) -> str:
    """What a person sees of a search."""
    stream = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        console = Console(file=stream, force_terminal=terminal, width=160, highlight=False)
        patch.setattr(progress, "Console", lambda **_: console)
        experiment = toy_experiment()
        with progress_display(quiet=False) as display:
            conduct(experiment, toy_materials(experiment), out, resume=resume, observer=display)
    return stream.getvalue()


def test_lines_tell_every_trial_its_scores_and_what_is_left(tmp_path: Path) -> None:
    text = shown(tmp_path / "run")
    assert "control none starts" in text
    assert "trial 0: control none done" in text
    assert "k-NN" in text
    assert "left)" in text
    assert Counter(re.findall(r"starts  \((\w+)", text)).items() >= {"controls": 3, "heads": 24}.items()
    assert "\x1b" not in text, "plain where there is no terminal"


def test_a_log_is_told_that_a_long_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not re.search(r" of \d+: loss", shown(tmp_path / "short"))
    monkeypatch.setattr(progress, "SILENCE", 0.0)
    text = shown(tmp_path / "long")
    assert re.search(r"trial 0: epoch 1\.0 of \d+: loss \d\.\d{3}, [\d,]+ images/s\n", text)


def test_a_log_is_told_soon_that_a_training_has_begun_and_then_seldom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    stream = io.StringIO()
    display = LineDisplay(Console(file=stream, width=160))
    training = Training((Trial(0, Candidate.of(HeadConfig())),), seed=0, workdir=tmp_path)
    display.training_started(training, SearchStatus("heads", 0, 1, None, 1))
    told = []
    for second in range(1, 150):
        clock[0] = float(second)
        before = stream.getvalue()
        display.training_progress(training, second / 10, 99, 1.0, 100.0)
        told += [second] if stream.getvalue() != before else []
    assert told == [10, 70, 130]


def test_lines_say_when_a_search_goes_on(tmp_path: Path) -> None:
    shown(tmp_path / "run")
    assert "resuming: " in shown(tmp_path / "run", resume=True)


def test_bars_leave_a_line_for_every_trial_that_ended(tmp_path: Path) -> None:
    text = shown(tmp_path / "run", terminal=True)
    assert "trial 0: control none done" in text
    assert "search" in text


def test_a_rung_that_is_told_again_has_no_speed(tmp_path: Path) -> None:
    stream = io.StringIO()
    display = LineDisplay(Console(file=stream, width=160))
    training = Training((Trial(0, Candidate.of(HeadConfig())),), seed=0, workdir=tmp_path)
    display.rung_reached(training, 0, RungScores(epoch=3, loss=1.0))
    display.training_progress(training, 3.5, 9, 1.0, 1234.0)
    display.rung_reached(training, 0, RungScores(epoch=6, loss=1.0))
    first, *_, last = stream.getvalue().splitlines()
    assert "images/s" not in first
    assert "1,234 images/s" in last
