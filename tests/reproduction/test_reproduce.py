"""A whole reproduction on the toy objective: what is run, interrupted, resumed, extended and refused; and what it writes."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from interrupting import Interrupting

from headsearch.errors import DataError, LabelsMissing, RunError
from headsearch.experiment import Experiment
from headsearch.heads.config import HeadConfig
from headsearch.reproduction.plan import Plan, make_plan
from headsearch.reproduction.reproduce import reproduce
from headsearch.reproduction.text import Report
from headsearch.runs.run import read_run
from headsearch.search.materials import Materials
from headsearch.search.observer import Observer
from headsearch.testing.toy import ToyEvaluator
from headsearch.testing.toy_search import scores, toy_materials
from headsearch.training.trial import RungScores

CPU = "proxy.device=cpu"
FAMILIES = ("vit", "mlp", "swin", "poolformer", "mbconv", "convnext", "resnet")


@dataclass(frozen=True)
class Graded(ToyEvaluator):
    """Heads whose discrepancy grows with their family's place in `FAMILIES` and with depth, and whose gain is `slope` times as much."""

    slope: float = 40.0
    noise: float = 0.5

    def scores(self, config: HeadConfig, epoch: int, seed: int, *, final: bool = False) -> RungScores:
        found = super().scores(config, epoch, seed, final=final)
        shift = self.noise * (2.0 * random.Random(seed).random() - 1.0)
        if not config.heads:
            return replace(found, knn=50.0 + shift if self.labels else None)
        (stage,) = config.heads[0].stages
        different = 0.1 * FAMILIES.index(stage.family) + (0.05 if stage.params["depth"] == 3 else 0.0)
        if stage.params.get("first_shortcut", True) and stage.family == "vit":
            different = 0.0
        names = ("cka.embedding.output", "cka.tokens.output", "cka.tokens.change")
        return replace(
            found,
            measures=dict.fromkeys(names, different),
            discrepancy=different,
            knn=50.0 + self.slope * different + shift if self.labels else None,
            quality={"retrieval.head": 80.0},
        )


class Gather:
    """Finds toy materials, and remembers for which experiments."""

    def __init__(self, evaluator: ToyEvaluator | None = None) -> None:
        self.evaluator = evaluator or Graded()
        self.experiments: list[Experiment] = []

    def __call__(self, experiment: Experiment) -> Materials:
        self.experiments.append(experiment)
        return toy_materials(experiment, replace(self.evaluator, labels=experiment.probes))


def plan(seeds: int = 2, *overrides: str) -> Plan:
    return make_plan(seeds=seeds, overrides=[CPU, "proxy.epochs=9", "proxy.rungs=[1, 3, 9]", *overrides])


def run(
    wanted: Plan,
    out: Path,
    *,
    resume: bool = False,
    gather: Gather | None = None,
    observer: Observer | None = None,
    told: list[str] | None = None,
) -> Report:
    def display() -> AbstractContextManager[Observer]:
        return nullcontext(observer or Observer())

    lines: list[str] = [] if told is None else told
    return reproduce(
        wanted, out, resume=resume, display=display, tell=lines.append, gather=gather or Gather()
    )


def verdicts(report: Report) -> dict[str, str]:
    return {claim.name: claim.verdict for claim in report.claims.claims}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report, list[str]]:
    out, told = tmp_path_factory.mktemp("reproduced") / "paper", list[str]()
    return out, run(plan(), out, told=told), told


def test_every_head_and_control_has_every_seed_and_the_screen_reads_no_label(
    finished: tuple[Path, Report, list[str]],
) -> None:
    out, _, told = finished
    proxies, screened = read_run(out / "heads"), read_run(out / "screen")
    assert len(proxies.rows) == 15
    assert {row.replicates for row in proxies.rows} == {2}
    assert sum(row.rank is not None for row in proxies.rows) == 12
    assert all(record.state == "complete" for record in proxies.records)
    assert len(screened.records) == 12
    assert {record.stage for record in screened.records} == {"screen"}
    assert all(rung.knn is None for record in screened.records for rung in record.rungs)
    assert screened.experiment.data.labels == "none"
    assert screened.experiment.seed != proxies.experiment.seed
    assert {r.seed for r in screened.records}.isdisjoint({r.seed for r in proxies.records})
    assert "30 proxies" in told[0]


def test_both_folders_are_runs_like_any_other(finished: tuple[Path, Report, list[str]]) -> None:
    out, _, _ = finished
    assert read_run(out / "heads").audit.sections
    assert read_run(out / "screen").audit.sections


def test_the_report_says_what_holds(finished: tuple[Path, Report, list[str]]) -> None:
    out, report, _ = finished
    assert verdicts(report) == {"pairs": "holds", "discrepancy": "holds", "search": "holds"}
    page = (out / "README.md").read_text(encoding="utf-8")
    found = json.loads((out / "claims.json").read_text(encoding="utf-8"))
    for claim in found["figures"]["claims"]:
        assert f"**{claim['verdict']}**: {claim['claim']}" in page
    for head in report.claims.heads:
        assert head.head_id in page
    assert "What this cannot show" in page
    assert "after looking" in page
    assert str(out) not in page


def test_claims_that_fail_are_a_result(tmp_path: Path) -> None:
    falling = run(plan(3), tmp_path / "out", gather=Gather(Graded(slope=-40.0)))
    assert verdicts(falling) == {
        "pairs": "does not hold",
        "discrepancy": "does not hold",
        "search": "does not hold",
    }


def test_one_seed_is_not_enough_and_a_second_can_be_added(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = run(plan(1), out)
    assert verdicts(first)["pairs"] == "not enough data to tell"
    assert "about 2 seeds" in (out / "README.md").read_text(encoding="utf-8")
    before = read_run(out / "heads").records
    more = run(plan(2), out, resume=True)
    assert verdicts(more)["pairs"] == "holds"
    assert read_run(out / "heads").records[: len(before)] == before


@pytest.mark.parametrize("after", [3, 20])
def test_an_interrupted_reproduction_goes_on_as_if_it_had_not_been(
    after: int, tmp_path: Path, finished: tuple[Path, Report, list[str]]
) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run(plan(), out, observer=Interrupting(after))
    assert not (out / "claims.json").exists()
    again = run(plan(), out, resume=True)
    assert again.claims == finished[1].claims
    whole = read_run(finished[0] / "heads").records
    assert scores(read_run(out / "heads").records) == scores(whole)


def test_a_reproduction_that_was_killed_before_its_first_training_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(RuntimeError, match="killed"):
        run(plan(1), out, gather=_Killed())
    assert sorted(file.name for file in out.iterdir()) == ["reproduce.yaml"]
    assert run(plan(1), out, resume=True).claims.heads


class _Killed(Gather):
    def __call__(self, experiment: Experiment) -> Materials:
        if self.experiments:
            raise RuntimeError("killed")
        return super().__call__(experiment)


@pytest.mark.parametrize(
    ("seeds", "overrides", "named"),
    [
        (2, ["proxy.learning_rate=0.1"], "proxy.learning_rate"),
        (2, ["seed=3"], "another seed"),
        (2, ["search.space=knobs"], "search.space"),
        (1, [], "number of seeds"),
    ],
)
def test_going_on_with_something_else_is_refused_by_name(
    seeds: int, overrides: Sequence[str], named: str, finished: tuple[Path, Report, list[str]]
) -> None:
    with pytest.raises(RunError, match=f"cannot resume with another.*{named}|cannot resume with {named}"):
        run(plan(seeds, *overrides), finished[0], resume=True)


def test_a_folder_that_exists_is_refused_and_nothing_to_resume_is_said(
    tmp_path: Path, finished: tuple[Path, Report, list[str]]
) -> None:
    with pytest.raises(RunError, match="exists; add --resume"):
        run(plan(), finished[0])
    with pytest.raises(RunError, match="nothing to resume"):
        run(plan(), tmp_path / "none", resume=True)
    (tmp_path / "reproduce.yaml").write_text("seeds: [", encoding="utf-8")
    with pytest.raises(RunError, match=r"reproduce.yaml:1:9: not valid YAML"):
        run(plan(), tmp_path, resume=True)


def test_data_without_labels_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    def unlabelled(experiment: Experiment) -> Materials:
        raise LabelsMissing(
            "data.labels: 'probe' needs class folders, which is flat", "set data.labels to none"
        )

    with pytest.raises(DataError, match=r"which is flat; the claims are about a probe, which needs labels$"):
        reproduce(plan(), tmp_path / "out", display=lambda: nullcontext(Observer()), gather=unlabelled)
    assert not (tmp_path / "out").exists()


def test_a_space_of_ones_own_is_screened_and_trained(tmp_path: Path) -> None:
    space = tmp_path / "three.yaml"
    space.write_text(
        "space: headsearch/space@1\ndoc: Three.\nhead: {one_of: [{swin: {depth: 1}}, {vit: {depth: 1}}, {resnet: {depth: 3}}]}\n",
        encoding="utf-8",
    )
    report = run(plan(2, f"search.space={space}"), tmp_path / "out")
    assert sum(head.searched for head in report.claims.heads) == 3
    assert verdicts(report)["search"] == "not enough data to tell"
