"""The checkpoints of a training: the newest few are kept, and one that is damaged gives way to the one before.

A file is named by its step and the checksum of its bytes, `000004500-9ae1c3d0.pt`: torch reads a file with a flipped bit in a weight
without complaint. It is written whole or not at all, and read without running anything that is in it.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import save
from torch import Tensor

from headsearch.errors import RunError
from headsearch.files import whole_file, write_bytes_atomically, writing
from headsearch.methods.collectives import bytes_of_first, on_first, rank, world_size


class _Summed:
    """A file that keeps the checksum of what is written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.checksum = 0
        self._raised: BaseException | None = None

    def write(self, content: memoryview) -> int:
        """Write, and keep for `check` what is raised, also by a signal: torch goes on writing, and raises an error of its own in its place."""
        if self._raised is None:
            try:
                self._file.write(content)
                self.checksum = zlib.crc32(content, self.checksum)
            except BaseException as error:  # noqa: BLE001
                self._raised = error
        return len(content)

    def flush(self) -> None:
        """Leave that to who closes the file."""

    def check(self) -> None:
        """Raise what a write has raised."""
        if self._raised is not None:
            raise self._raised


class Checkpoints:
    """The checkpoints in a folder, which is made with the first of them."""

    def __init__(self, folder: Path, *, prefix: str = "", keep: int = 1) -> None:
        """`keep` of the newest stay on disk. Names start with `prefix`."""
        self.folder = folder
        self.prefix = prefix
        self.keep = keep

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write the state after `step` steps (tensors and plain data), then remove the oldest. For the first rank alone.

        Raises:
            RunError: it cannot be written (disk full, no permission); the older ones are left as they were.
        """
        named = f"{self.prefix}{step:09}"

        def final() -> Path:
            return self.folder / f"{named}-{summed.checksum:08x}.pt"

        try:
            self.folder.mkdir(exist_ok=True)
            with whole_file(self.folder / f"{named}.pt", final) as file:
                summed = _Summed(file)
                torch.save(dict(state), summed)  # type: ignore[arg-type]
                summed.check()
            written = final()
            # Not kept either: an older state of the same step, from before its epoch was counted, and later ones that were damaged.
            older = [path for path in self._newest_first() if path.name < named]
            for path in {*self._newest_first()} - {written, *older[: self.keep - 1]}:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise RunError(
                f"{self.folder}: checkpoint cannot be written: {error.strerror or error}"
            ) from error

    def load(
        self, device: torch.device, *, identity: str, note: Callable[[str], None]
    ) -> dict[str, Any] | None:
        """The newest undamaged state, the same on all ranks, though only the first reads it; None where nothing was saved yet.

        `note` is told of files that are damaged.

        Raises:
            RunError: all files are damaged, hold more than tensors and plain data, or are of another training than `identity` names.
        """
        path = on_first(lambda: self._newest_whole(note))
        if path is None:
            return None
        source = _for_all(path)
        try:
            state = torch.load(source, map_location=device, weights_only=True)
        except Exception as error:
            # What torch raises depends on which byte of the pickled data is not what it expects.
            first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise RunError(
                f"{path}: not a readable checkpoint ({first_line}); remove it to train from the start"
            ) from error
        if not isinstance(state, dict) or state.get("identity") != identity:
            raise RunError(f"{path}: belongs to another training; remove it to train from the start")
        return state

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob(f"{self.prefix}*pt"), reverse=True)

    def _newest_whole(self, note: Callable[[str], None]) -> str | None:
        """The newest checkpoint whose bytes are those that were written."""
        # A process that is killed while it writes leaves a temporary file.
        for path in self.folder.glob(f".{self.prefix}*.pt.*"):
            path.unlink(missing_ok=True)
        paths = self._newest_first()
        for path in paths:
            try:
                found = _checksum(path)
            except OSError as error:
                note(f"{path} cannot be read: {error.strerror or error}")
                continue
            _, named, checksum = path.stem.rpartition("-")
            # Trials of former versions have one `checkpoint.pt`, without a checksum.
            if not named or checksum == f"{found:08x}":
                return str(path)
            note(f"{path} is damaged")
        if paths:
            raise RunError(
                f"{paths[0]}: damaged, and no other checkpoint is left; remove it to train from the start"
            )
        return None


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while part := file.read(2**20):
            checksum = zlib.crc32(part, checksum)
    return checksum


def _for_all(path: str) -> str | io.BytesIO:
    """What to read a checkpoint from: of several ranks, the first alone may have it."""
    if world_size() == 1:
        return path
    return io.BytesIO(bytes_of_first(Path(path).read_bytes() if rank() == 0 else b""))


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, whole or not at all.

    Raises:
        RunError: it cannot be written; what was there is left as it was.
    """
    content = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with writing(path):
        write_bytes_atomically(path, save(content, metadata={"format": "pt"}))
