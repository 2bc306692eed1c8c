"""A run from Python: `headsearch.runs.run.Run`, with its ranking, scores, heads and figures as tables, files and objects."""

from __future__ import annotations

from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Self

from headsearch.export import ExportedHead, chosen_head, export_head
from headsearch.results.ranking import By
from headsearch.runs import run as model
from headsearch.runs.run import read_run

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Run(model.Run):
    """A run at one moment, as `headsearch.search` and `headsearch.open` return it.

    Besides the methods below it has `verdict` (whether any head beats no head, in one sentence), `problems` (what cannot be read) and
    `audit` (how far the ranking can be trusted).
    """

    @classmethod
    def at(cls, path: str | PathLike[str]) -> Self:
        """The same as `headsearch.open`."""
        found = read_run(Path(path))
        return cls(**{field.name: getattr(found, field.name) for field in fields(found)})

    def table(self, by: By | None = None, *, everything: bool = False) -> pd.DataFrame:
        """The ranking: a row per head, with the fields of `headsearch rank --format json`. Unknown is missing.

        Args:
            by: the order: `score` (the default), `pareto`, `probe` or `discrepancy`.
            everything: include the heads that earlier stages dropped, with stage and reason.
        """
        from headsearch.runs.frame import ranking

        return ranking([*self.ranking(by), *(self.departed if everything else ())])

    def trials(self) -> pd.DataFrame:
        """A row per trial: number, state, head, seed, scores at its last rung, seconds, reason. Unknown is missing."""
        from headsearch.runs.frame import trials

        return trials(self.records)

    def curves(self) -> pd.DataFrame:
        """A row per trial and rung, with all its scores; see `headsearch.runs.frame.curves`."""
        from headsearch.runs.frame import curves

        return curves(self)

    def head(self, rank: int = 1, *, head_id: str | None = None) -> ExportedHead:
        """A head with its base, scores and provenance: the content of a `head.yaml`.

        `headsearch.load_head`, `pretrain` and `compare` accept it.

        Args:
            rank: position in the ranking, from 1.
            head_id: the name of a head or of a control, instead of a rank.

        Raises:
            RunError: there is no such head.
        """
        return chosen_head(self, rank=rank, head_id=head_id)

    def export(
        self, out: str | PathLike[str] = "head.yaml", *, rank: int = 1, head_id: str | None = None
    ) -> ExportedHead:
        """Write a head to a `head.yaml`, as `headsearch export` does. Arguments and errors are those of `head`."""
        return export_head(self, Path(out), rank=rank, head_id=head_id)

    def figure(self, name: str = "overview") -> go.Figure:
        """A figure of the report, in plotly: `overview` (every head by discrepancy and probe), `curves` or `cost`.

        Raises:
            MissingPackage: plotly is not installed.
            RunError: there is no such figure.
        """
        from headsearch.errors import require

        require("plotly", extra="dashboard", where="a figure")
        from headsearch.report.named_figures import named_figure

        return named_figure(self, name)

    def __repr__(self) -> str:
        return f"<headsearch.Run {self.path}: {self.verdict}>"

    def _repr_html_(self) -> str:
        from headsearch.report.notebook import run_html

        return run_html(self)
