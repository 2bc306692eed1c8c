"""The checkpoints of a pretraining: the newest few are kept, and one that cannot be read gives way to the one before."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from headsearch.errors import RunError
from headsearch.pretrain.distributed import bytes_of_first, on_first
from headsearch.training.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint


class Checkpoints:
    """`checkpoints/<step>.pt` below a folder."""

    def __init__(self, folder: Path, *, keep: int) -> None:
        """`keep` of the newest stay on disk."""
        self.folder = folder
        self.keep = keep

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write the state after `step` steps, whole or not at all, then remove the oldest. For the first rank alone.

        Raises:
            RunError: it cannot be written; the older ones are left as they were.
        """
        try:
            self.folder.mkdir(exist_ok=True)
            save_checkpoint(self.folder / f"{step:09}.pt", state)
            for path in self._newest_first()[self.keep :]:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise RunError(f"{self.folder}: cannot be written: {error.strerror or error}") from error

    def load(
        self, device: torch.device, *, identity: str, note: Callable[[str], None]
    ) -> dict[str, Any] | None:
        """The newest readable state, the same on all ranks, though only the first reads it; None where nothing was saved yet.

        `note` is told of files that cannot be read.

        Raises:
            RunError: none of the files can be read, or one is of another training than `identity` names.
        """
        content: bytes | None = None

        def read() -> bool:
            nonlocal content
            content = self._read(identity, note)
            return content is not None

        if not on_first(read):
            return None
        content = bytes_of_first(content)
        assert content is not None
        return read_checkpoint(io.BytesIO(content), self.folder, device)

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("*.pt"), reverse=True)

    def _read(self, identity: str, note: Callable[[str], None]) -> bytes | None:
        """The bytes of the newest checkpoint that can be read."""
        paths = self._newest_first()
        for path in paths:
            try:
                state = load_checkpoint(path, torch.device("cpu"))
            except RunError:
                note(f"{path} is damaged and left alone; going on from the checkpoint before it")
                continue
            if state.get("identity") != identity:
                raise RunError(f"{path}: belongs to another training; choose another --out")
            return path.read_bytes()
        if paths:
            raise RunError(
                f"{self.folder}: none of {len(paths)} checkpoints can be read; choose another --out to start anew"
            )
        return None
