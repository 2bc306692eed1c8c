from pathlib import Path

import pytest

from headsearch.testing.tiny import write_two_colours


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 small images to train on and 40 to test on."""
    return write_two_colours(tmp_path_factory.mktemp("images") / "images.npz")
