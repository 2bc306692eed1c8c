"""The result of an evaluation: rows for people and programs. No torch here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from headsearch.errors import ExperimentError, require
from headsearch.evaluation.intervals import Outcome, margin
from headsearch.evaluation.spec import EvaluationSpec
from headsearch.files import versions
from headsearch.results.text import number, result_html

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    from rich.table import Table

    from headsearch.evaluation.detection import DetectionCheck
    from headsearch.evaluation.health import Health

VERSION = "headsearch/evaluation@1"


@dataclass(frozen=True)
class ProbeRow:
    """One probe of one set of weights. Scores, intervals and differences are in percent or points of it; unknown is None."""

    probe: str
    """`20-NN`, `linear`, `few-shot 1%`, `finetune`, `segmentation mIoU`."""
    weights: str
    score: float
    low: float | None
    """Lower end of the 95% interval; `high` is the upper end."""
    high: float | None
    difference: float | None
    """Difference to the first weights, with the same seeds and test images; None for the first."""
    difference_low: float | None
    difference_high: float | None
    by_seed: tuple[float, ...]
    """The score with each seed; a single one if the probe is not random."""
    test_images: int


@dataclass(frozen=True)
class Evaluation:
    """The outcome of `headsearch evaluate`."""

    spec: EvaluationSpec
    """The resolved specification."""
    rows: tuple[ProbeRow, ...]
    """By probe, then in the order of the weights."""
    checks: tuple[DetectionCheck, ...]
    """Results of the detection probe, if it was requested."""
    data: tuple[str, ...] = ()
    """How the labelled images were understood and which are left out, a line each."""
    health: tuple[Health, ...] = ()
    """Results of the probe `label-free`, if it was requested, in the order of the weights."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "evaluation": VERSION,
            "versions": versions(),
            "spec": self.spec.model_dump(mode="json"),
            "data": list(self.data),
            "rows": [asdict(row) for row in self.rows],
            "detection": [check.to_dict() for check in self.checks],
            "health": [each.to_dict() for each in self.health],
        }

    def to_json(self) -> str:
        """The same as text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def table(self) -> pd.DataFrame:
        """The rows as a pandas table: a row per probe and weights, with the fields of `ProbeRow`. Unknown is missing."""
        import pandas as pd

        return pd.DataFrame([asdict(row) for row in self.rows])

    def figure(self) -> go.Figure:
        """The measures of the probe `label-free` over the weights in plotly, one panel each.

        Raises:
            MissingPackage: plotly is not installed.
            ExperimentError: the probe was not asked for.
        """
        check_drawable(self.spec, "a figure")
        from headsearch.evaluation.health_page import health_figure

        return health_figure(self.health)

    def __repr__(self) -> str:
        scores = [f"{row.weights} {row.probe} {row.score:.1f}" for row in self.rows]
        return f"<headsearch.Evaluation: {', '.join([*scores, *self._verdicts()])}>"

    def _repr_html_(self) -> str:
        header, *rows = _cells(self.rows)
        said = [*self.data, *self._verdicts()]
        return result_html("Evaluation", said, header, rows, names=2)

    def _verdicts(self) -> list[str]:
        """Whether trainings are healthy and detectors can be trained, if requested, a sentence each."""
        return [*(f"{each.weights}: {each.verdict}" for each in self.health), *check_lines(self.checks)]


def check_drawable(spec: EvaluationSpec, where: str) -> None:
    """Check that the label-free measures can be drawn. `where` is what for.

    Raises:
        MissingPackage: plotly is not installed.
        ExperimentError: the probe was not asked for.
    """
    if "label-free" not in spec.probes:
        raise ExperimentError(f"{where}: draws the measures of the probe label-free; add it to the probes")
    for package in ("plotly", "dash"):
        require(package, extra="dashboard", where=where)


def compared(outcomes: Mapping[str, Mapping[str, Outcome]]) -> tuple[ProbeRow, ...]:
    """Rows from the outcomes of each weights by probe; the first weights are what the others are compared with."""
    if not outcomes:
        return ()
    first = next(iter(outcomes))
    return tuple(
        _row(probe, name, outcomes[name][probe], None if name == first else outcomes[first][probe])
        for probe in outcomes[first]
        for name in outcomes
    )


def _row(probe: str, name: str, outcome: Outcome, reference: Outcome | None) -> ProbeRow:
    low, high = _around(outcome.score, margin(outcome.contributions))
    if low is not None and high is not None:
        low, high = max(low, 0.0), min(high, 100.0)
    paired: tuple[float | None, float | None, float | None] = (None, None, None)
    if reference is not None:
        difference = outcome.score - reference.score
        paired = difference, *_around(difference, margin(outcome.contributions - reference.contributions))
    images = outcome.contributions.shape[1]
    return ProbeRow(probe, name, outcome.score, low, high, *paired, outcome.by_seed, images)


def _around(centre: float, half: float | None) -> tuple[float | None, float | None]:
    return (None, None) if half is None else (centre - half, centre + half)


def evaluation_table(evaluation: Evaluation) -> Table:
    """The rows for a terminal; the detection check below."""
    from headsearch.results.tables import text_table

    header, *rows = _cells(evaluation.rows)
    return text_table(header, rows, words=("probe", "weights"))


def _cells(rows: Sequence[ProbeRow]) -> Iterator[list[str]]:
    """The table's header and rows as text."""
    several = len({row.weights for row in rows}) > 1
    yield ["probe", "weights", "%", "95%", *(["vs first", "95%"] if several else []), "seeds", "test images"]
    before = ""
    for row in rows:
        cells = [row.probe if row.probe != before else "", row.weights, f"{row.score:.1f}"]
        cells.append(_interval(row.low, row.high))
        if several:
            cells.append("" if row.difference is None else f"{row.difference:+.1f}")
            cells.append(
                "" if row.difference is None else _interval(row.difference_low, row.difference_high, "+")
            )
        yield [*cells, str(len(row.by_seed)), str(row.test_images)]
        before = row.probe


def health_table(health: Sequence[Health]) -> Table:
    """The label-free measures for a terminal: a row for each weights."""
    from headsearch.results.tables import text_table

    names = list(dict.fromkeys(name for each in health for name in each.measures))
    rows = [[each.weights, *(number(each.measures.get(name), ".3g") for name in names)] for each in health]
    return text_table(["weights", *names], rows, words=("weights",))


def check_lines(checks: Sequence[DetectionCheck]) -> list[str]:
    """The detection check in words."""
    return [
        f"detection check of {check.weights}: {'passed' if check.passed else 'FAILED'}: losses "
        f"{', '.join(f'{loss:.3f}' for loss in check.losses)}; gradients reach {check.reached} of {check.tensors} weight tensors"
        for check in checks
    ]


def _interval(low: float | None, high: float | None, sign: str = "") -> str:
    return "-" if low is None or high is None else f"{low:{sign}.1f} to {high:{sign}.1f}"
