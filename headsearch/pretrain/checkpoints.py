"""The checkpoints of a pretraining: the newest few are kept, and one that is damaged gives way to the one before.

A file is named by its step and the checksum of its bytes, `checkpoints/000004500-9ae1c3d0.pt`: torch reads a file with a flipped
bit in a weight without complaint.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from headsearch.errors import RunError
from headsearch.files import write_bytes_atomically
from headsearch.pretrain.distributed import bytes_of_first, on_first
from headsearch.training.checkpoint import read_checkpoint


class Checkpoints:
    """The checkpoints in a folder, which is made with the first of them."""

    def __init__(self, folder: Path, *, keep: int) -> None:
        """`keep` of the newest stay on disk."""
        self.folder = folder
        self.keep = keep

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write the state after `step` steps, whole or not at all, then remove the oldest. For the first rank alone.

        Raises:
            RunError: it cannot be written; the older ones are left as they were.
        """
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        content = buffer.getbuffer()
        try:
            self.folder.mkdir(exist_ok=True)
            written = self.folder / f"{step:09}-{zlib.crc32(content):08x}.pt"
            write_bytes_atomically(written, content)
            # Not kept either: an older state of the same step, from before its epoch was counted, and later ones that were damaged.
            older = [path for path in self._newest_first() if path.name < f"{step:09}"]
            for path in {*self._newest_first()} - {written, *older[: self.keep - 1]}:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise RunError(f"{self.folder}: cannot be written: {error.strerror or error}") from error

    def load(
        self, device: torch.device, *, identity: str, note: Callable[[str], None]
    ) -> dict[str, Any] | None:
        """The newest undamaged state, the same on all ranks, though only the first reads it; None where nothing was saved yet.

        `note` is told of files that are damaged.

        Raises:
            RunError: all files are damaged, or the newest is of another training than `identity` names.
        """
        content: bytes | None = None

        def read() -> str | None:
            nonlocal content
            path, content = self._newest_whole(note)
            return path

        path = on_first(read)
        if path is None:
            return None
        content = bytes_of_first(content)
        assert content is not None
        state = read_checkpoint(io.BytesIO(content), Path(path), device)
        if state.get("identity") != identity:
            raise RunError(f"{path}: belongs to another training; choose another --out")
        return state

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("*.pt"), reverse=True)

    def _newest_whole(self, note: Callable[[str], None]) -> tuple[str | None, bytes | None]:
        """Name and bytes of the newest checkpoint whose bytes are those that were written."""
        paths = self._newest_first()
        for path in paths:
            content = path.read_bytes()
            if path.stem.endswith(f"-{zlib.crc32(content):08x}"):
                return str(path), content
            note(f"{path} is damaged; going on from the checkpoint before it")
        if paths:
            raise RunError(
                f"{self.folder}: all {len(paths)} checkpoints are damaged; choose another --out to start anew"
            )
        return None, None
