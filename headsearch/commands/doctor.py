"""`headsearch doctor`: what is installed, what there is to compute on, and what would be slow and why."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, Literal

from headsearch.cores import cores
from headsearch.files import PACKAGES, versions

_PACKAGES = (*PACKAGES, "scipy", "scikit-learn", "pandas")


@dataclass(frozen=True)
class Finding:
    """One thing worth knowing."""

    topic: str
    level: Literal["ok", "slow", "wrong"]
    text: str


def examine(folder: Path) -> list[Finding]:
    """Look at this machine. `folder` is where runs would be written. Imports torch, which takes seconds."""
    return [*_packages(), *_devices(), *_processor(), *_storage(folder)]


def report(findings: list[Finding]) -> dict[str, Any]:
    """Plain data for `--format json`."""
    return {"versions": versions(_PACKAGES), "findings": [asdict(finding) for finding in findings]}


def _packages() -> list[Finding]:
    found = versions(_PACKAGES)
    missing = [package for package in _PACKAGES if package not in found]
    findings = [Finding("packages", "wrong", f"{package} is not installed") for package in missing]
    listed = ", ".join(f"{name} {version}" for name, version in found.items())
    return [Finding("packages", "ok", listed), *findings, *_bytecode(importlib.util.find_spec("torch"))]


def _bytecode(torch: ModuleSpec | None) -> list[Finding]:
    """Whether every process compiles torch and timm anew: some containers forbid Python to keep what it compiles, and not every installer does it."""
    if torch is None or torch.cached is None or not sys.dont_write_bytecode or Path(torch.cached).exists():
        return []
    text = (
        "packages are not compiled and PYTHONDONTWRITEBYTECODE is set: every worker starts seconds later; "
        f"once: {sys.executable} -m compileall -q {Path(torch.cached).parents[2]}"
    )
    return [Finding("packages", "slow", text)]


def _devices() -> list[Finding]:
    import torch

    if not torch.cuda.is_available():
        reason = "no accelerator: training runs on the processor; fine for small bases at 16 to 32 pixels, too slow for 224"
        return [Finding("devices", "slow", reason)]
    findings = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        text = f"cuda:{index} {properties.name}, {properties.total_memory / 2**30:.0f} GiB"
        if torch.cuda.is_bf16_supported(including_emulation=False):
            findings.append(Finding("devices", "ok", f"{text}, bfloat16"))
        else:
            findings.append(Finding("devices", "slow", f"{text}, no bfloat16: precision auto uses float32"))
    return findings


def _processor() -> list[Finding]:
    import torch

    threads = torch.get_num_threads()
    findings = [
        Finding("processor", "ok", f"cores: {cores()}, threads of torch: {threads}, {platform.machine()}")
    ]
    if threads > cores():
        text = f"torch uses {threads} threads on {cores()} cores; set OMP_NUM_THREADS={cores()}"
        findings.append(Finding("processor", "slow", text))
    return findings


def _storage(folder: Path) -> list[Finding]:
    existing = next(parent for parent in [folder.absolute(), *folder.absolute().parents] if parent.exists())
    free = shutil.disk_usage(existing).free / 2**30
    if not os.access(existing, os.W_OK):
        return [Finding("storage", "wrong", f"{existing} cannot be written; choose another --out")]
    level: Literal["ok", "wrong"] = "wrong" if free < 0.5 else "ok"
    return [
        Finding("storage", level, f"{free:.1f} GiB free at {existing}"),
        Finding(
            "storage", "ok", f"temporary files in {os.environ.get('TMPDIR', '/tmp')}, prefix {sys.prefix}"
        ),
    ]
