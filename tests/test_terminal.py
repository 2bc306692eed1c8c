"""What the command line prints, on any terminal, and how it takes paths with any characters."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import forked
import pytest

TINY = [
    "--set=data.subset=320",
    "--set=proxy.epochs=1",
    "--set=search.strategy=proxies",
    "--set=search.trials=1",
    "--set=search.finalists=0",
    "--set=search.replicates=1",
    "--set=search.controls=[]",
    "--set=base.kwargs={patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2}",
]
SPACE = 'space: headsearch/space@1\ndoc: "half … \\ud83d\\ude00"\nhead: {one_of: [{mixer: {depth: {int: [1, 3]}}}, {resnet: {}}]}\n'


def headsearch(*arguments: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a fresh interpreter and let it end."""
    return subprocess.run(
        [sys.executable, "-m", "headsearch", *map(str, arguments)],
        capture_output=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )


@pytest.fixture
def space(tmp_path: Path) -> Path:
    file = tmp_path / "größe 😀.yaml"
    file.write_text(SPACE, encoding="utf-8")
    return file


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"COLUMNS": "40", "NO_COLOR": "1"},
        {"PYTHONIOENCODING": "cp1252", "TERM": "dumb"},
    ],
    ids=lambda environment: "-".join(environment.values()),
)
def test_any_terminal_is_good_enough(environment: dict[str, str], space: Path) -> None:
    shown = headsearch("space", "show", space, **environment)
    assert (shown.returncode, shown.stderr) == (0, b"")
    assert b"mixer" in shown.stdout
    refused = headsearch("space", "show", space.with_suffix(".gone"), **environment)
    assert refused.returncode == 2
    assert refused.stderr.startswith(b"headsearch: ")
    assert len(refused.stderr.splitlines()) == 1
    assert headsearch("run", "--help", **environment).returncode == 0


def test_a_character_in_two_halves_is_one(space: Path) -> None:
    shown = headsearch("space", "show", space, PYTHONIOENCODING="utf-8")
    assert "half … 😀" in shown.stdout.decode()


@pytest.mark.parametrize(
    "arguments", [["space", "schema"], ["space", "show", "paper"], ["--help"]], ids=" ".join
)
def test_a_reader_that_goes_is_no_mistake(arguments: Sequence[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as gone:
        ended = subprocess.run(
            [sys.executable, "-m", "headsearch", *arguments], stdout=gone, stderr=subprocess.PIPE, timeout=300
        )
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_work_that_ends_with_the_reader_of_its_progress_is_not_done() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as gone:
        command = [sys.executable, "-m", "headsearch", "space", "count", "paper"]
        ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=gone, timeout=300)
    assert (ended.returncode, ended.stdout) == (128 + signal.SIGPIPE, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_the_output_is_one_line() -> None:
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "headsearch", "space", "schema"],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=300,
        )
    assert ended.returncode == 1
    assert ended.stderr == b"headsearch: [Errno 28] No space left on device\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["space", "show", "~/s.yaml"], "/home/nobody/s.yaml: no such file"),
        (["space", "show", "~nosuchuser/s.yaml"], "~nosuchuser/s.yaml: no such file"),
        (["run", "--data=~/pics"], "no folder of images at '/home/nobody/pics'"),
        (["run", "--data", "~/a 😀.npz"], "no .npz file at '/home/nobody/a 😀.npz'"),
        (
            ["run", "--set", "data.root=~/pics", "--set=data.dataset=folder"],
            "no folder of images at '/home/nobody/pics'",
        ),
        (["run", "--set=base.weights=~/w.pt"], "no file '/home/nobody/w.pt'"),
        (["run", "--set=search.space=~/s.yaml"], "/home/nobody/s.yaml: no such file"),
        (["run", "~/e.yaml"], "/home/nobody/e.yaml: no such experiment"),
        (["rank", "~/r"], "/home/nobody/r: no such run directory"),
        (["run", "--out=~", "--resume"], "/home/nobody: no such run directory"),
    ],
    ids=str,
)
def test_a_tilde_is_the_home_directory_everywhere(
    arguments: Sequence[str], expected: str, tmp_path: Path
) -> None:
    refused = forked.headsearch(*arguments, cwd=tmp_path, HOME="/home/nobody")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert expected in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


HEAD = Path(__file__).parent / "fixtures" / "scores" / "head.yaml"


def test_what_needs_no_torch_is_said_without_it(tmp_path: Path) -> None:
    wrong = [
        ["run", "--data", "/gone"],
        ["run", "--set", "base.weights=/gone"],
        ["run", "--set", "search.executor={kind: ray, address: '127.0.0.1:1'}"],
        ["run", "--set", "search.storage=sqlite:////gone/study.db"],
        ["run", "--set", "search.space=gone.yaml"],
        ["run", "--set", "method.name=gone"],
        ["pretrain", HEAD, "--data", "/gone", "--out", "x"],
        ["compare", HEAD, "--data", "/gone", "--out", "x"],
        ["evaluate", "random", "--base", "resnet18", "--data", "/gone"],
        ["evaluate", "/gone.pt", "--base", "resnet18", "--data", "digits"],
        ["reproduce", "paper", "--data", "/gone", "--out", "x"],
        ["space", "score", "tiny", "--data", "/gone"],
    ]
    code = (
        "import sys; from headsearch.cli import main\n"
        f"for arguments in {[list(map(str, arguments)) for arguments in wrong]!r}:\n"
        "    sys.argv = ['headsearch', *arguments]\n"
        "    try:\n        main()\n    except SystemExit as end:\n        assert end.code == 2, end.code\n"
        "    assert not {'torch', 'timm', 'ray'} & set(sys.modules), arguments"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=tmp_path
    )
    assert ended.returncode == 0, ended.stderr
    said = ended.stderr.splitlines()
    assert (len(said), {line.partition(" ")[0] for line in said}) == (len(wrong), {"headsearch:"}), said


def test_hints_can_be_pasted(tmp_path: Path) -> None:
    out = "it's a place; 😀 $HOME"
    ended = forked.headsearch("run", "digits", *TINY, "--out", out, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    hint = ended.stderr.split("Take the best one with:")[1].strip()
    assert shlex.split(hint) == ["headsearch", "export", out, "--rank", "1", "--out", "head.yaml"]
    written = forked.headsearch(*shlex.split(hint)[1:], cwd=tmp_path)
    assert written.returncode == 0, written.stderr
    made = forked.headsearch("init", "my own", cwd=tmp_path)
    hint = made.stderr.split("then:")[1].strip()
    assert (tmp_path / shlex.split(hint)[-1]).is_file()
