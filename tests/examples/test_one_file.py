"""The README's example of one file: it runs as it stands, to a ranked table."""

from pathlib import Path

import numpy as np
from forked import script

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "one_file.py"


def test_a_base_a_family_and_five_channels_from_one_file(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels = np.arange(48) % 2
    images = random.integers(0, 100, (48, 32, 32, 5)).astype(np.uint8)
    images[labels == 1, :, :, 4] += 100
    np.savez(tmp_path / "images.npz", images=images, labels=labels)
    (tmp_path / EXAMPLE.name).write_text(EXAMPLE.read_text())
    ran = script(tmp_path / EXAMPLE.name, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert "circular" in ran.stdout
    assert "mixer" in ran.stdout


def test_the_readme_shows_the_file_as_it_is() -> None:
    assert EXAMPLE.read_text() in (ROOT / "README.md").read_text()
