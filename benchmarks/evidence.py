"""Writes every table of docs/evidence_tables.md from the committed curves of HeadBench.

    python benchmarks/evidence.py [--check] [--only NAME ...]

A table stands between `<!-- evidence: NAME TABLE -->` and `<!-- end -->`, where TABLE is a file in `benchmarks/headbench/` without its ending. `--check` writes
nothing, and fails where a table would change. Nothing is trained. The slowest is `cost`: 500 simulated searches a policy, a minute or two.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from pathlib import Path

import label_free_outcomes
import label_free_scores
import numpy as np
import optuna
import pandas as pd
import search_cost
import search_policies
from headbench.anchors import FORMULAS, MEAN, BenchCurves, Outcome, choose, replay
from headbench.prediction import Bench, ahead
from headbench.table import PARTS, plain, read_headbench
from photographs_outcomes import judged
from rich.console import Console
from rich.table import Table

from headsearch.results.agreement import Tau, mean_tau, tau_b
from headsearch.results.noise import Noise, pooled_noise
from headsearch.results.ranking import pareto_layers
from headsearch.results.shrinkage import shrunk
from headsearch.scoring.discrepancy import MEASURES

HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "docs" / "evidence_tables.md"
BLOCK = re.compile(r"(<!-- evidence: (\w+) ([\w -]+) -->\n).*?(<!-- end -->)", re.DOTALL)
PROTOCOL = "protocol"
"""What docs/protocol.md asks for, from long trainings on photographs."""
JOINT = ("screen", "screen-all", "screen-long")
SCREENED = (
    "cka.embedding.output",
    "cka.tokens.output",
    "cka.tokens.change",
    "procrustes.embedding.output",
    "mutual_knn.embedding.output",
    "retrieval.head",
    "score",
)
"""What screens and proxies are compared by."""


class Curves:
    """A HeadBench, by parts and scores."""

    def __init__(self, path: Path) -> None:
        self.name = path.name.removesuffix(".csv.gz")
        self.table = read_headbench(path)

    def parts(self) -> list[str]:
        """Those that the table has, in order."""
        return [part for part in PARTS if (self.table["part"] == part).any()]

    def rungs(self, part: str) -> list[int]:
        """Epochs at which a part was scored."""
        return sorted(int(epoch) for epoch in self.table.loc[self.table["part"] == part, "epoch"].unique())

    def scores(
        self, part: str, column: str, epoch: int | None = None, *, controls: bool = True
    ) -> pd.DataFrame:
        """(heads, seeds): one score at a rung, by default the last. With `controls` those that have a head are heads like any."""
        rows = self.table[
            (self.table["part"] == part) & (self.table["epoch"] == (epoch or self.rungs(part)[-1]))
        ]
        rows = rows[rows["control"] != "none"] if controls else rows[rows["control"].isna()]
        return rows.pivot(index="head_id", columns="replicate", values=column)

    def control(self, part: str, name: str, column: str) -> np.ndarray:
        """(seeds,): a control's score at the full budget."""
        rows = self.table[(self.table["part"] == part) & (self.table["control"] == name)]
        return rows.loc[rows["epoch"] == rows["epoch"].max(), column].to_numpy(float)


def gains(curves: Curves) -> Iterable[Table | str]:
    """What every head gains on the long schedule."""
    knn = curves.scores("long", "knn")
    of_control = {name: curves.control("long", name, "knn") for name in ("none", "same", "mlp")}
    noise = pooled_noise(
        [(row.count(), row.std()) for _, row in knn.iterrows()]
        + [(len(of_control["none"]), float(of_control["none"].std(ddof=1)))]
    )
    names = curves.table.dropna(subset=["control"]).drop_duplicates("head_id").set_index("head_id")["control"]
    table = _table(
        f"Base after the long schedule ({curves.rungs('long')[-1]} epochs): k-NN accuracy, gain [95% for each alone]",
        "head",
        "k-NN %",
        "over none",
        "over same",
        "over mlp",
        "discrepancy",
        "score",
    )
    discrepancy, score = (
        curves.scores("long", column).mean(axis=1) for column in ("cka.embedding.output", "score")
    )
    for head in knn.mean(axis=1).sort_values(ascending=False).index:
        values = knn.loc[head].dropna()
        label = f"{head} ({names[head]})" if head in names else head
        overs = [_gain(values, control, noise) for control in of_control.values()]
        table.add_row(label, f"{values.mean():.1f}", *overs, f"{discrepancy[head]:.2f}", f"{score[head]:.2f}")
    table.add_row("none", f"{of_control['none'].mean():.1f}", "", "", "", "", "")
    yield table
    searched = knn[~knn.index.isin(names.index)]
    for name, control in of_control.items():
        counts = searched.count(axis=1).tolist()
        lows = [_interval(values.dropna(), control, noise, counts)[0] for _, values in searched.iterrows()]
        best = searched.mean(axis=1).idxmax()
        low, high = _interval(searched.loc[best].dropna(), control, noise, counts)
        yield (
            f"{sum(low > 0 for low in lows)} of {len(searched)} heads beat {name}, adjusted for {len(searched)} heads; the best, {best}, "
            f"by {searched.loc[best].mean() - control.mean():.1f} [{low:.1f}, {high:.1f}]"
        )
    assert noise is not None
    yield f"standard deviation between seeds {noise.deviation:.2f} points, between heads' means {searched.mean(axis=1).std():.2f}"


def discrepancy(curves: Curves) -> Iterable[Table | str]:
    """Whether the gain grows with the discrepancy, by any measure."""
    target = curves.scores("long", "knn").mean(axis=1)
    table = _table(
        "Kendall's tau-b with the k-NN accuracy after the long schedule [95%]", "measured at", *curves.parts()
    )
    for column in (*MEASURES, "score", "retrieval.head", "rankme_head"):
        cells = []
        for part in curves.parts():
            values = curves.scores(part, column).mean(axis=1)
            heads = [head for head in target.index if head in values.index]
            cells.append(_shown(mean_tau([(plain(values[heads]), plain(target[heads]))])))
        table.add_row(column, *cells)
    yield table


def seeds(curves: Curves) -> Iterable[Table | str]:
    """How far two seeds agree."""
    parts = [part for part in curves.parts() if part != "untrained"]
    table = _table("Kendall's tau-b between two seeds, mean over pairs of seeds [95%]", "score", *parts)
    for column in ("knn", "linear", *SCREENED):
        table.add_row(column, *(_shown(_between(curves.scores(part, column))) for part in parts))
    yield table


def screens(curves: Curves) -> Iterable[Table | str]:
    """Whether a joint run orders heads as trainings of their own do."""
    parts = [part for part in ("untrained", *JOINT) if part in curves.parts()]
    table = _table(
        "Kendall's tau-b with the heads' own proxies, means over seeds [95%]",
        "score",
        *parts,
    )
    for column in SCREENED:
        own = curves.scores("proxies", column)
        cells = []
        for part in parts:
            joint = curves.scores(part, column)
            heads = [head for head in joint.index if head in own.index]
            means = plain(joint.loc[heads].mean(axis=1)), plain(own.loc[heads].mean(axis=1))
            cells.append(_shown(mean_tau([means])))
        table.add_row(column, *cells)
    yield table
    yield f"{len(curves.scores('screen', 'score'))} heads, {curves.scores('proxies', 'score').shape[1]} seeds; as ceiling, proxies among themselves: see the table between seeds"


def schedules(curves: Curves) -> Iterable[Table | str]:
    """Whether a proxy, or an early part of the long schedule, has the order of its end."""
    target = curves.scores("long", "knn")
    table = _table(
        "Kendall's tau-b with the k-NN accuracy after the long schedule [95%]",
        "from",
        "epochs",
        "k-NN, means",
        "k-NN, single seeds",
        "top-1 loses",
        "top-3 loses",
    )
    best = float(target.mean(axis=1).max())
    for part in ("proxies", "long"):
        for epoch in curves.rungs(part):
            if part == "long" and epoch == curves.rungs(part)[-1]:
                continue
            early = curves.scores(part, "knn", epoch)
            heads = [head for head in target.index if head in early.index]
            # Within a training the end has the luck of the start: seeds are never paired with themselves.
            pairs = [
                (plain(early.loc[heads, a]), plain(target.loc[heads, b]))
                for a in early
                for b in target
                if part != "long" or a != b
            ]
            means = mean_tau([(plain(early.loc[heads].mean(axis=1)), plain(target.loc[heads].mean(axis=1)))])
            order = early.loc[heads].mean(axis=1).sort_values(ascending=False).index
            losses = [best - float(target.loc[order[:k]].mean(axis=1).max()) for k in (1, 3)]
            table.add_row(
                part,
                str(epoch),
                _shown(means),
                _shown(mean_tau(pairs)) if pairs else "-",
                *(f"{loss:.1f}" for loss in losses),
            )
    yield table


def scores(*benches: Curves) -> Iterable[Table | str]:
    """Which label-free score predicts the long schedule."""
    for part in benches[0].parts():
        if part != "long" and all(part in bench.parts() for bench in benches):
            yield label_free_scores.text_table(
                label_free_scores.judge([path_of(bench.name) for bench in benches], part), every=False
            )


def candidates(*benches: Curves) -> Iterable[Table | str]:
    """Whether one of three label-free measures, named beforehand, predicts the long schedule better than the score."""
    measured = {bench.name: Curves(path_of(f"label_free/{bench.name}")).table for bench in benches}
    yield from label_free_outcomes.text(
        {bench.name: (bench.table, measured[bench.name]) for bench in benches}
    )


def trunk(*benches: Curves) -> Iterable[Table | str]:
    """Whether proxies tell more where they branch from a trunk, beside proxies from scratch of the same heads and seeds."""
    table = _table(
        "Kendall's tau-b with the k-NN accuracy after the long schedule [95%]",
        "bench",
        "proxies",
        "epochs",
        "seeds",
        "heads",
        "k-NN, seed 0",
        "k-NN",
        "linear",
        "score",
        "k-NN, beyond cold",
    )
    judged: dict[str, list[pd.DataFrame]] = {}
    for bench in benches:
        target = bench.scores("long", "knn")
        branched = Curves(path_of(f"trunk/{bench.name}"))
        ends = target.mean(axis=1)
        seeds = sorted(branched.table["replicate"].unique())
        for part in ("cold", *branched.table["part"].unique()):
            source, name = (bench, "proxies") if part == "cold" else (branched, part)
            found = {
                column: source.scores(name, column)[seeds].mean(axis=1).reindex(ends.index)
                for column in ("knn", "linear", "score")
            }
            first = source.scores(name, "knn")[0].reindex(ends.index)
            shown = [_shown(mean_tau([(plain(values), plain(ends))])) for values in (first, *found.values())]
            beyond = "-"
            if part != "cold":
                cold = bench.scores("proxies", "knn")[seeds].mean(axis=1).reindex(ends.index)
                columns = pd.DataFrame({"branched": found["knn"], "cold": cold, "target": ends})
                judged.setdefault(part, []).append(columns)
                beyond = _beyond([columns])
            epochs = str(source.rungs(name)[-1])
            count = str(int(found["knn"].notna().sum()))
            table.add_row(bench.name, part, epochs, str(len(seeds)), count, *shown, beyond)
        for part, epoch in (("prefix", bench.rungs("long")[0]), ("ceiling", bench.rungs("long")[-1])):
            early = bench.scores("long", "knn", epoch)
            pairs = [(plain(early[seed]), plain(target.drop(columns=seed).mean(axis=1))) for seed in early]
            count = str(len(target))
            table.add_row(
                bench.name, part, str(epoch), "1", count, "-", _shown(mean_tau(pairs)), "-", "-", "-"
            )
    yield table
    for part, columns in judged.items():
        if len(columns) > 1:
            yield f"{part}, k-NN beyond cold, the mean of {len(columns)} benches: {_beyond(columns)}"
    yield "ceiling: one whole long training against the mean of the others; prefix: its first rung against that"


def _beyond(benches: Sequence[pd.DataFrame]) -> str:
    """How much better the column `branched` predicts `target` than `cold` does; heads are drawn for all benches together."""
    heads = sorted(set().union(*(columns.dropna().index for columns in benches)))
    aligned = [columns.dropna().reindex(heads) for columns in benches]
    found = ahead(
        [
            Bench({name: plain(each[name]) for name in ("branched", "cold")}, plain(each["target"]))
            for each in aligned
        ],
        "branched",
        "cold",
    )
    return "-" if found is None else f"{found.difference:+.2f} [{found.low:.2f}, {found.high:.2f}]"


def orders(*benches: Curves) -> Iterable[Table | str]:
    """Which order of heads is that of held-out long trainings: one seed of trainings of three lengths against another of the long schedule."""
    table = _table(
        "Kendall's tau-b of an order with the k-NN accuracy after the long schedule, single seeds",
        "trained for",
        "ordered by",
        *(bench.name for bench in benches),
        "mean",
    )
    for length in ("proxy", "half", "full"):
        found = [_orders(bench, length) for bench in benches]
        for name, *taus in zip(("pareto", "probe", "score", "shrunk"), *found, strict=True):
            table.add_row(length, name, *(f"{tau:.2f}" for tau in (*taus, np.mean(taus))))
    yield table
    yield "shrunk: the probe shrunk towards the score, with the noise between all seeds of the bench; the probe at full length is another long training"


def _orders(bench: Curves, length: str) -> list[float]:
    """tau-b by pareto, probe, score and shrunk, mean over pairs of different seeds."""
    target, rungs = bench.scores("long", "knn"), bench.rungs("long")
    part = "proxies" if length == "proxy" else "long"
    epoch = {
        "proxy": bench.rungs("proxies")[-1],
        "half": min(rungs, key=lambda rung: abs(rung - rungs[-1] / 2)),
        "full": rungs[-1],
    }[length]
    knn, score, different = (
        bench.scores(part, column, epoch).reindex(target.index)
        for column in ("knn", "score", "cka.embedding.output")
    )
    noise = pooled_noise([(int(row.count()), float(row.std())) for _, row in knn.iterrows()])
    assert noise is not None
    found = []
    for a in knn:
        for b in target:
            columns = np.stack(
                [frame.to_numpy(float) for frame in (knn[a], score[a], different[a], target[b])]
            )
            probe, scored, apart, end = columns[:, np.isfinite(columns).all(axis=0)]
            # Within a training the end has the luck of the start: seeds are never paired with themselves.
            if (part == "long" and a == b) or len(probe) == 0:
                continue
            layers = np.array(pareto_layers(list(zip(apart.tolist(), probe.tolist(), strict=True))))
            pareto = np.empty(len(probe))
            pareto[np.lexsort((-probe, layers))] = -np.arange(len(probe))
            moved = shrunk(scored.tolist(), probe.tolist(), [1] * len(probe), noise)
            assert moved is not None
            values = (pareto, probe, scored, np.array([each.value for each in moved]))
            found.append([tau_b(each, end) or 0.0 for each in values])
    return [float(tau) for tau in np.mean(found, axis=0)]


def anchors(*every: Curves) -> Iterable[Table | str]:
    """How well long trainings of a few heads predict those of the others, each bench left out of what is chosen; benches without proxies take no part in the choice."""
    benches = [bench for bench in every if (bench.table["part"] == "proxies").any()]
    curves = [_curves_of(bench, "knn") for bench in benches]
    table = _table(
        "Long-run gains predicted from anchors: formula and number of anchors chosen on the other benches",
        "bench",
        "formula",
        "anchors",
        "RMSE",
        "of the mean alone",
        "width",
        "held",
        "held, noise allowed for",
    )
    for place, bench in enumerate(benches):
        chosen = choose(curves[:place] + curves[place + 1 :])
        found, plain = (
            replay(curves[place], FORMULAS[name], chosen.anchors) for name in (chosen.formula, MEAN)
        )
        table.add_row(bench.name, chosen.formula, str(chosen.anchors), *_predicted(found, plain))
    yield table
    chosen = choose(curves)
    yield f"chosen on all of them: {chosen.formula} with {chosen.anchors} anchors; with these, by the linear probe:"
    table = _table("", "bench", "RMSE", "of the mean alone", "width", "held", "held, noise allowed for")
    for bench in benches:
        linear = _curves_of(bench, "linear")
        found, plain = (replay(linear, FORMULAS[name], chosen.anchors) for name in (chosen.formula, MEAN))
        table.add_row(bench.name, *_predicted(found, plain))
    yield table
    table = _table(
        "The same by k-NN, on benches that nothing was chosen on; scores of screens",
        "bench",
        "RMSE",
        "of the mean alone",
        "width",
        "held",
        "held, noise allowed for",
    )
    for bench in every:
        if bench not in benches:
            unseen = _curves_of(bench, "knn", "screen")
            found, plain = (replay(unseen, FORMULAS[name], chosen.anchors) for name in (chosen.formula, MEAN))
            table.add_row(bench.name, *_predicted(found, plain))
    if table.row_count:
        yield table


def _curves_of(bench: Curves, probe: str, part: str = "proxies") -> BenchCurves:
    scores, long = (bench.scores(*column, controls=False) for column in ((part, "score"), ("long", probe)))
    return BenchCurves(
        scores.to_numpy(float), long.loc[scores.index].to_numpy(float), bench.control("long", "none", probe)
    )


def _predicted(found: Outcome, plain: Outcome) -> list[str]:
    shares = [f"{share:.1%}" for share in (found.as_they_are, found.coverage)]
    return [f"{found.rmse:.2f}", f"{plain.rmse:.2f}", f"{found.width:.1f}", *shares]


def cost(curves: Curves) -> Iterable[Table | str]:
    """What a search costs against training every head."""
    bench = search_policies.load(path_of(curves.name))
    yield f"{len(bench.heads)} heads, {bench.screened.shape[1]} seeds, 500 repeats; as good as the best: within {bench.noise:.2f} points"
    yield from search_cost.text_tables(bench, search_cost.measure(bench, 500))


TABLES: dict[str, Callable[..., Iterable[Table | str]]] = {
    each.__name__: each
    for each in (
        gains,
        discrepancy,
        seeds,
        screens,
        schedules,
        candidates,
        trunk,
        scores,
        orders,
        anchors,
        cost,
    )
}


def _between(values: pd.DataFrame) -> Tau:
    return mean_tau([(plain(values[a]), plain(values[b])) for a, b in combinations(values, 2)])


def _shown(found: Tau) -> str:
    if found.tau is None or found.low is None or found.high is None:
        return "-"
    return f"{found.tau:.2f} [{found.low:.2f}, {found.high:.2f}]"


def _interval(
    values: pd.Series, control: np.ndarray, noise: Noise | None, together: Sequence[int] = ()
) -> tuple[float, float]:
    if noise is None:
        return float("nan"), float("nan")
    return noise.interval(float(values.mean() - control.mean()), len(values), len(control), together)


def _gain(values: pd.Series, control: np.ndarray, noise: Noise | None) -> str:
    low, high = _interval(values, control, noise)
    return f"{values.mean() - control.mean():+.1f} [{low:.1f}, {high:.1f}]"


def _table(title: str, *headers: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for place, header in enumerate(headers):
        table.add_column(header, justify="right" if place else "left", no_wrap=place == 0)
    return table


def path_of(name: str) -> Path:
    """The file of a table."""
    return HERE / "headbench" / f"{name}.csv.gz"


def block(name: str, tables: Sequence[str]) -> str:
    """The text of one table, as it stands in the document."""
    if name == PROTOCOL:
        return f"\n{judged(HERE / 'photographs' / f'{tables[0]}.csv')}\n\n"
    console = Console(file=io.StringIO(), width=170)
    for part in TABLES[name](*(Curves(path_of(table)) for table in tables)):
        console.print(part, soft_wrap=isinstance(part, str), highlight=False)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "```\n" + "\n".join(line.rstrip() for line in text.rstrip().splitlines()) + "\n```\n"


def main() -> None:
    """Write, or check."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing, fail where a table would change")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[*TABLES, PROTOCOL],
        default=[*TABLES, PROTOCOL],
        help="these tables alone",
    )
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    before = DOCUMENT.read_text(encoding="utf-8")

    def written(match: re.Match[str]) -> str:
        if match[2] not in options.only:
            return match[0]
        return match[1] + block(match[2], match[3].split()) + match[4]

    after = BLOCK.sub(written, before)
    if options.check:
        sys.exit(
            "docs/evidence_tables.md is not what the curves say; run benchmarks/evidence.py"
            if after != before
            else 0
        )
    DOCUMENT.write_text(after, encoding="utf-8")
    print(f"docs/evidence_tables.md: {len(BLOCK.findall(after))} tables")


if __name__ == "__main__":
    main()
