"""An installation without extras: everything else works, and what is missing is named in one line."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXTRAS = {"ray", "pyarrow", "dash", "plotly", "waitress", "flask", "werkzeug", "tensorboard", "mlflow", "wandb", "psycopg", "pymysql", "grpc", "tifffile", "imagecodecs", "simplejpeg"}  # fmt: skip
TINY = ["digits_proxies", "--set", "base.kwargs={patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2}",
        "--set", "proxy.epochs=1", "--set", "proxy.rungs=[1]", "--set", "search.trials=1", "--set", "search.finalists=0", "--set", "search.replicates=1",
        "--set", "search.controls=[none]"]  # fmt: skip


@pytest.fixture(scope="module")
def headsearch(tmp_path_factory: pytest.TempPathFactory) -> object:
    """The command in an environment that lacks all extras: of the installed packages, links to the others."""
    packages = tmp_path_factory.mktemp("packages")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if entry.suffix != ".pth" and entry.name.split(".")[0] not in EXTRAS:
            (packages / entry.name).symlink_to(entry)
    code = "import sys; sys.path[:0] = sys.argv.pop(1).split(':'); from headsearch.cli import main; main()"

    def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-S", "-c", code, f"{ROOT}:{packages}", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=300,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        )

    return run


def test_a_search_and_its_tables_need_no_extra(headsearch: object, tmp_path: Path) -> None:
    assert callable(headsearch)
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
    headsearch: object, tmp_path: Path, setting: str, named: str
) -> None:
    assert callable(headsearch)
    result = headsearch("run", *TINY, "--set", setting, "--out", tmp_path / "run")
    assert result.returncode == 2
    assert named in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_tiff_of_bands_names_what_reads_it(headsearch: object, tmp_path: Path) -> None:
    import numpy as np
    import tifffile

    assert callable(headsearch)
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
