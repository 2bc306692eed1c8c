"""How far a search is, for a terminal and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headsearch.results.ranking import probe_score
from headsearch.results.records import TrialRecord, finite
from headsearch.results.spending import part_of
from headsearch.results.text import duration, gain, number
from headsearch.runs.run import Run

if TYPE_CHECKING:
    from rich.console import RenderableType

_STEPS = "▁▂▃▄▅▆▇█"
_WIDTH = 40
"""Characters of the sparkline."""
_GAINS = ("gain", "gain_low", "gain_high", "linear_gain", "linear_gain_low", "linear_gain_high")
_OF_THE_BEST = ("head_id", "discrepancy", "probe", "epochs", *_GAINS)
"""What the status shows of the first head in the ranking: fields of its row."""
_CONDITIONS = {
    "at work": "at work",
    "interrupted": "interrupted: continue with --resume",
    "ended": "finished",
    "empty": "nothing has been trained yet",
}


def status_data(view: Run) -> dict[str, Any]:
    """Plain data for JSON; unknown is None."""
    best = view.ranked[0] if view.ranked else None
    running = [
        {
            **{name: getattr(each.record, name) for name in ("number", "head_id", "control", "replicate")},
            "epoch": each.epoch,
            "budget": view.budget,
        }
        for each in view.running
    ]
    return finite(
        {
            "run": str(view.path),
            "condition": view.condition,
            "stage": view.stage,
            "done": view.settled,
            "expected": view.expected,
            "seconds_left": view.seconds_left,
            "states": dict(view.states),
            "epochs": view.spending.epochs,
            "seconds": view.spending.seconds,
            "running": running,
            "best": None if best is None else {name: getattr(best, name) for name in _OF_THE_BEST},
            "verdict": view.verdict,
            # Not known of runs of former versions.
            **({"data": list(view.facts.data)} if view.facts is not None and view.facts.data else {}),
            "problems": list(view.problems),
        }
    )


def status_panel(view: Run) -> RenderableType:
    """The same for a terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, told in _facts(view):
        facts.add_row(name, Text(told))
    parts: list[RenderableType] = [facts]
    if view.running:
        table = Table("trial", "head", "epoch", "last scores", box=None, pad_edge=False, header_style="bold")
        for running in view.running:
            record, epoch = running.record, f"{number(running.epoch, 'g')} of {view.budget}"
            named, scores = Text(trial_name(record)), Text(last_scores(record))
            table.add_row(str(record.number), named, epoch, scores)
        parts += [Text(), table]
    parts += [Text(), Text(view.verdict)]
    parts += [Text(f"cannot be read: {line}") for line in view.problems]
    return Group(*parts)


def sparkline(values: Sequence[float], width: int = _WIDTH) -> str:
    """Values as a line of bars, from the lowest to the highest. Of more than `width` values, the last of each stretch is shown.

    >>> sparkline([0.0, 0.5, 1.0])
    '▁▅█'
    """
    if not values:
        return ""
    if len(values) > width:
        values = [values[(place + 1) * len(values) // width - 1] for place in range(width)]
    low, high = min(values), max(values)
    if low == high:
        return _STEPS[0] * len(values)
    return "".join(_STEPS[round((value - low) / (high - low) * (len(_STEPS) - 1))] for value in values)


def best_so_far(view: Run) -> list[float]:
    """The best final score so far after each searched head that ran its full budget: the probe or, without labels, the discrepancy."""
    best: list[float] = []
    for record in view.records:
        if record.state != "complete" or part_of(record) != "heads":
            continue
        last = record.rungs[-1]
        score = probe_score(last) if view.labels else last.discrepancy
        if score is not None:
            best.append(max(score, best[-1] if best else score))
    return best


def _facts(view: Run) -> list[tuple[str, str]]:
    done = f"{view.settled} of {view.expected}" if view.expected is not None else str(view.settled)
    left = f", about {duration(view.seconds_left)} left" if view.seconds_left else ""
    told = [("run", str(view.path)), ("state", _CONDITIONS[view.condition]), ("stage", view.stage)]
    told.append(("trainings", f"{done} done{left}"))
    if view.states:
        counts = sorted(view.states.items(), key=lambda item: -item[1])
        told.append(("trials", ", ".join(f"{count} {state}" for state, count in counts)))
    if view.facts is not None and view.facts.data:
        told.append(("data", "\n".join(view.facts.data).removeprefix("data: ")))
    progress = best_so_far(view)
    if progress:
        what, how = ("probe", ".1f") if view.labels else ("discrepancy", ".3f")
        told.append((f"best {what}", f"{sparkline(progress)} {number(progress[-1], how)}"))
    if view.ranked:
        best = view.ranked[0]
        shown = f", gain {gain(best.gain, best.gain_low, best.gain_high)}" if best.gain is not None else ""
        told.append(("first", f"{best.head_id}{shown}"))
    return told


def trial_name(record: TrialRecord) -> str:
    """What people call a trial: its head or its control, and its seed."""
    name = f"control {record.control}" if record.control else record.head_id
    return f"{name}, seed {record.replicate + 1}" if record.replicate else name


def last_scores(record: TrialRecord) -> str:
    """What was measured at the last rung."""
    if not record.rungs:
        return "no rung yet"
    last = record.rungs[-1]
    return (
        f"epoch {last.epoch}: discrepancy {number(last.discrepancy, '.3f')}, k-NN {number(last.knn, '.1f')}"
    )
