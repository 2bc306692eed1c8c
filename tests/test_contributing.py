"""CONTRIBUTING names files that are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_way_of_a_trial_passes_files_that_are_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    way = text.partition("## Follow one trial")[2].partition("## Recipes")[0]
    stops = re.findall(r"^\d+\. `(\S+\.py)`", way, flags=re.MULTILINE)
    assert f"these {len(stops)} files" in way
    assert [stop for stop in stops if not (ROOT / "headsearch" / stop).is_file()] == []
