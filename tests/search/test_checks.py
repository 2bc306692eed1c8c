"""What is refused before anything heavy is loaded."""

from pathlib import Path

import pytest

from headsearch.errors import DataError, ExperimentError, SpaceError, UserError
from headsearch.experiment import load_experiment
from headsearch.search.checks import check_experiment, check_grids, check_sets
from headsearch.space import load_space, parse_space

CROPS = "data.augmentation={local_crops: 2, local_size: 8}"


@pytest.mark.parametrize(
    ("override", "kind", "expected"),
    [
        ("search.discrepancy=cka.embedding", ExperimentError, "did you mean 'cka.embedding"),
        ("method.name=moco", ExperimentError, "did you mean 'mocov3'"),
        ("method.kwargs={temperature: cold}", ExperimentError, "temperature"),
        ("data.dataset=digit", DataError, "did you mean 'digits'"),
        ("data.dataset=folder", DataError, "data.root"),
        ("data.augmentation={flop: 0.5}", ExperimentError, "did you mean 'flip'"),
    ],
)
def test_names_and_options_are_checked(override: str, kind: type[UserError], expected: str) -> None:
    with pytest.raises(kind) as caught:
        check_experiment(load_experiment("digits", [override]))
    assert expected in str(caught.value)


def test_a_root_that_is_not_there_is_named(tmp_path: Path) -> None:
    overrides = ["data.dataset=folder", f"data.root={tmp_path / 'gone'}"]
    with pytest.raises(DataError, match="gone"):
        check_experiment(load_experiment(None, overrides))
    (tmp_path / "gone").mkdir()
    check_experiment(load_experiment(None, overrides))


def test_heads_that_are_tied_to_one_grid_are_refused_with_local_crops() -> None:
    mixers = parse_space(
        "space: headsearch/space@1\nhead: {one_of: [{convnext: {}}, {stack: {repeat: 2, each: {mixer: {}}}}]}",
        "s.yaml",
    )
    free = parse_space(
        "space: headsearch/space@1\nhead: {one_of: [{convnext: {}}, {swin: {window: 2}}]}", "s.yaml"
    )
    cropped, whole = load_experiment("digits", [CROPS]), load_experiment("digits")
    with pytest.raises(SpaceError, match=r"s\.yaml:2:.*mixer heads are tied to one grid"):
        check_grids(cropped, mixers)
    check_grids(whole, mixers)
    check_grids(cropped, free)


def test_a_base_that_takes_one_size_only_is_refused_with_local_crops() -> None:
    from headsearch.training.evaluator import Evaluator

    with pytest.raises(UserError, match="cannot take images of 8x8"):
        Evaluator(load_experiment("digits", [CROPS])).prepare()
    flexible = "base.kwargs={patch_size: 4, embed_dim: 16, depth: 1, num_heads: 1, dynamic_img_size: true}"
    Evaluator(load_experiment("digits", [CROPS, flexible])).prepare()


@pytest.mark.parametrize("strategy", ["funnel", "screen"])
def test_sets_are_for_proxies(strategy: str) -> None:
    sets, singles = load_space("sets"), load_space("tiny")
    screening = load_experiment("digits", [f"search.strategy={strategy}"])
    with pytest.raises(SpaceError, match=f"the space has sets of heads, and a {strategy} takes single heads"):
        check_sets(screening, sets)
    check_sets(screening, singles)
    check_sets(load_experiment("digits", ["search.strategy=proxies"]), sets)
