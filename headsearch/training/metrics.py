"""`metrics.jsonl`: what a trial saw while it trained, one JSON object a line, for people and plots.

`{"kind": "epoch", "epoch", "loss", "learning_rate", "images_per_second"}` after every epoch, and
`{"kind": "rung", "trial", ...}` at every rung, with the number of the trial and the fields of `RungScores`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headsearch.files import writing


class MetricsLog:
    """An append-only file that forgets what came after a checkpoint when the trial resumes from it.

    Its methods raise `RunError` where the file cannot be written.
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        """Keep the first `size` bytes of the file, which is created where there is none."""
        self._path = path
        with writing(path), path.open("ab") as file:
            file.truncate(size)

    def append(self, kind: str, record: Mapping[str, Any]) -> None:
        """Write one line, at once."""
        line = json.dumps({"kind": kind, **record}, allow_nan=False)
        with writing(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    @property
    def size(self) -> int:
        """Bytes written, for the checkpoint."""
        return self._path.stat().st_size
