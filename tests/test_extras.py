"""An installation without extras: the wheel in an environment of its own, with what it declares. Everything else works, and what is missing is named."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Iterable
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
EXTRAS = {"ray", "pyarrow", "dash", "plotly", "waitress", "flask", "werkzeug", "tensorboard", "mlflow", "wandb", "psycopg", "pymysql", "grpc", "tifffile", "imagecodecs", "simplejpeg"}  # fmt: skip
TINY = ["digits_proxies", "--set", "base.kwargs={patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2}",
        "--set", "data.subset=320", "--set", "proxy.epochs=1", "--set", "proxy.rungs=[1]", "--set", "search.trials=1", "--set", "search.finalists=0", "--set", "search.replicates=1",
        "--set", "search.controls=[none]"]  # fmt: skip

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def required(declared: Distribution) -> dict[str, Distribution]:
    """By name, the installed distributions that a plain `pip install` of one brings, itself left out."""
    found: dict[str, Distribution] = {}
    waiting: list[tuple[Distribution, Iterable[str]]] = [(declared, ())]
    seen: set[tuple[str, str]] = set()
    while waiting:
        of, extras = waiting.pop()
        for extra in ("", *extras):
            if (of.name, extra) in seen:
                continue
            seen.add((of.name, extra))
            for requirement in map(Requirement, of.requires or ()):
                if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                    found[requirement.name] = distribution(requirement.name)
                    waiting.append((found[requirement.name], requirement.extras))
    return found


@pytest.fixture(scope="module")
def headsearch(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The command of the wheel, installed. What it requires is linked from here, as it would take minutes to install: no package that it does not declare is there."""
    folder = tmp_path_factory.mktemp("installed")
    wheel = next(WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"]))
    environment = folder / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    python, uv = environment / "bin" / "python", Path(sys.executable).parent / "uv"
    subprocess.run(
        [uv, "pip", "install", "--quiet", "--offline", "--no-deps", "--python", python, wheel], check=True
    )
    (packages,) = environment.glob("lib/python*/site-packages")
    here = Path(sysconfig.get_path("purelib"))
    (installed,) = packages.glob("headsearch-*.dist-info")
    for needed in required(PathDistribution(installed)).values():
        for name in {file.parts[0] for file in needed.files or ()} - {"..", "__pycache__"}:
            if not (packages / name).exists():
                (packages / name).symlink_to(here / name)
    assert not EXTRAS & {path.name.split(".")[0] for path in packages.iterdir()}

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [environment / "bin" / "headsearch", *map(str, arguments)]
        clean = {"PATH": str(environment / "bin"), "OMP_NUM_THREADS": "1", "HOME": str(folder)}
        return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder, env=clean)

    return run


def test_a_search_and_its_tables_need_no_extra(headsearch: Command, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = headsearch("run", *TINY, "--out", out)
    assert result.returncode == 0, result.stderr
    for command in ("rank", "trials", "status", "audit"):
        result = headsearch(command, out)
        assert result.returncode == 0, result.stderr
    assert headsearch("export", out, "--out", tmp_path / "head.yaml").returncode == 0
    assert not list(out.glob("report.*"))
    for arguments, where, extra in [
        (("dashboard", out), "the dashboard: dash", "dashboard"),
        (("report", out), "a report: dash", "dashboard"),
    ]:
        result = headsearch(*arguments)
        line = f"headsearch: {where} is not installed; install it with: pip install 'headsearch[{extra}]'\n"
        assert (result.returncode, result.stderr) == (2, line)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("search.executor={kind: ray}", "search.executor: ray is not installed"),
        ("search.callbacks=[{kind: tensorboard}]", "search.callbacks: tensorboard is not installed"),
        ("search.storage=postgresql://me@localhost/x", "pip install 'headsearch[postgresql]'"),
    ],
)
def test_what_an_experiment_needs_is_named_before_anything_is_trained(
    headsearch: Command, tmp_path: Path, setting: str, named: str
) -> None:
    result = headsearch("run", *TINY, "--set", setting, "--out", tmp_path / "run")
    assert result.returncode == 2
    assert named in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_tiff_of_bands_names_what_reads_it(headsearch: Command, tmp_path: Path) -> None:
    import numpy as np
    import tifffile

    (tmp_path / "images").mkdir()
    for number in range(4):
        tifffile.imwrite(tmp_path / "images" / f"{number}.tif", np.zeros((8, 8, 5), np.uint16))
    result = headsearch(
        "run",
        "--data",
        tmp_path / "images",
        "--set",
        "data.channels=5",
        "--set",
        "data.labels=none",
        "--out",
        tmp_path / "run",
    )
    assert result.returncode == 2
    assert result.stderr.endswith("pip install 'headsearch[tiff]'\n")
    assert not (tmp_path / "run").exists()
