"""The page on reliability promises nothing without a test."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_promise_names_tests_that_exist() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    table = page.split("## ")[0].split("|---|---|\n")[1]
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert len(rows) > 20
    for row in rows:
        _, promise, shown, _ = row.split("|")
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", shown)
        assert named or promise.strip().startswith("**"), promise
        for file, test in named:
            assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{test}"
