"""`headsearch space score`: its two streams, and how it ends. In this process, since importing torch takes longer than all else."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from headsearch.cli import app
from headsearch.errors import UserError

SMALL = (
    "--base=vit_tiny_patch16_224",
    "--data=digits",
    "--set=data.image_size=16",
    "--set=base.kwargs={patch_size: 4, embed_dim: 32, depth: 1, num_heads: 2}",
    "--set=proxy.device=cpu",
    "--seeds=1",
    "--images=40",
)
SPACE = """
space: headsearch/space@1
head: {one_of: [{mixer: {depth: {int: [1, 2]}}}, {vit: {num_heads: {choice: [2, 5]}, depth: 1}}, {resmlp: {depth: 1}}]}
"""


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("space") / "space.yaml"
    path.write_text(SPACE)
    return path


def score(*words: str) -> Result:
    return CliRunner().invoke(app, ["space", "score", *words])


def refusal(*words: str) -> str:
    """The message that `main` prints, after nothing has been printed before it."""
    done = score(*words)
    assert isinstance(done.exception, UserError), done.output
    assert done.output == ""
    message = str(done.exception)
    assert "\n" not in message
    return message


def test_json_is_alone_on_stdout_and_the_same_as_what_is_kept(space: Path, tmp_path: Path) -> None:
    kept = tmp_path / "scores.jsonl"
    first = score(str(space), *SMALL, "--format", "json", "--out", str(kept))
    assert first.exit_code == 0, first.stderr
    rows = json.loads(first.stdout)
    assert len(rows) == 4
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    assert "space.yaml has 4 distinct heads that are allowed on this base" in first.stderr
    assert {json.loads(line)["head_id"] for line in kept.read_text().splitlines()[1:]} == {
        row["head_id"] for row in rows
    }
    again = score(str(space), *SMALL, "--by", "synflow", "--format", "csv", "--out", str(kept))
    assert again.exit_code == 0, again.stderr
    table = list(csv.DictReader(io.StringIO(again.stdout)))
    assert {row["synflow"] for row in rows} == {None}
    flows = [float(row["synflow"]) for row in table]
    assert flows == sorted(flows, reverse=True)
    assert {row["head_id"]: json.loads(row["config"]) for row in table} == {
        row["head_id"]: row["config"] for row in rows
    }


def test_a_table_is_for_people(space: Path) -> None:
    done = score(str(space), *SMALL, "-n", "2")
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split()[:3] == ["place", "head", "score"]
    assert [line.split()[0] for line in lines[1:3]] == ["1", "2"]
    assert done.stderr.strip() == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nothing.yaml",), "nothing.yaml"),
        (("tiny", "--by", "scor"), "--by: no score 'scor'; did you mean 'score'?"),
        (("tiny", "--base", "vit_tinny"), "timm has no model 'vit_tinny'"),
        (("tiny", "--data", "no/such/folder"), "no/such/folder"),
        (("tiny", "--set", "base.modle=x"), "modle"),
    ],
)
def test_bad_input_is_one_line(words: tuple[str, ...], message: str) -> None:
    assert message in refusal(*words)


def test_an_empty_folder_and_an_empty_space_are_told(tmp_path: Path) -> None:
    assert str(tmp_path) in refusal("tiny", "--data", str(tmp_path), "--set", "data.image_size=16")
    path = tmp_path / "space.yaml"
    path.write_text(SPACE + "constraints: [depth > 5]\n")
    assert "no head of the space is allowed" in refusal(str(path), *SMALL)


def test_bad_input_exits_with_2_before_torch_is_imported() -> None:
    code = (
        "import sys; from headsearch.cli import main; sys.argv[1:] = ['space', 'score', 'tiny', '--by', 'scor']\n"
        "try: main()\n"
        "finally: print(sorted({'torch', 'timm', 'ray', 'optuna'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "[]\n")
    assert done.stderr == "headsearch: --by: no score 'scor'; did you mean 'score'?\n"


def test_help_has_an_example() -> None:
    assert "headsearch space score paper" in score("--help").stdout
