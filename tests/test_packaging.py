"""What is shipped: the files that commands name are where they are looked for."""

import zipfile
from pathlib import Path

import pytest

from headsearch.shipped import shipped_folder, shipped_names

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("search_spaces", {"tiny", "paper", "metaformer", "sets", "knobs", "claims"}),
        ("experiments", {"digits", "demo", "cifar10", "imagenet100", "imagenet_vit_small"}),
    ],
)
def test_shipped_files_are_found(kind: str, names: set[str]) -> None:
    assert names <= set(shipped_names(kind))  # type: ignore[arg-type]
    assert all((shipped_folder(kind) / f"{name}.yaml").is_file() for name in names)  # type: ignore[arg-type]


def test_the_wheel_carries_them_inside_the_package(tmp_path: Path) -> None:
    from hatchling.builders.wheel import WheelBuilder

    wheel = next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))
    inside = set(zipfile.ZipFile(wheel).namelist())
    for kind in ("search_spaces", "experiments"):
        assert {f"headsearch/{kind}/{file.name}" for file in (ROOT / kind).glob("*.yaml")} <= inside
    assert {
        "headsearch/templates/experiment.yaml",
        "headsearch/report/assets/style.css",
        "headsearch/report/assets/dashboard.js",
        "headsearch/templates/space.yaml",
        "headsearch/cli.py",
    } <= inside
