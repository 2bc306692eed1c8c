"""What is noted on the trials of a study: how a record becomes attributes of a trial, and is read back from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from headsearch.results.ranking import probe_score
from headsearch.results.records import TrialRecord, finite

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


_IDENTITY = ("config", "control", "seed", "replicate", "stage", "taken", "epochs")
_NOT_OF_ALL = ("taken", "epochs")
"""Written only where they are known, as by former versions."""
_OUTCOME = ("state", "rungs", "cost", "seconds", "images_per_second", "reason", "duplicate_of")


def identity(record: TrialRecord) -> dict[str, Any]:
    """What a trial is, beside its head's id. As few attributes as can be: each costs Optuna two statements."""
    plain = record.to_dict()
    return {"trial": {n: plain[n] for n in _IDENTITY if n not in _NOT_OF_ALL or plain[n] is not None}}


def for_people(record: TrialRecord) -> dict[str, Any]:
    """What Optuna's dashboard shows of a trial from its start, beside its parameters."""
    noted = {
        "head_id": record.head_id,
        "control": record.control,
        "replicate": record.replicate or None,
        "stage": record.stage if record.stage != "proxy" else None,
    }
    return {key: value for key, value in noted.items() if value is not None}


def known_at_the_end(record: TrialRecord, none: float | None) -> dict[str, Any]:
    """What Optuna's dashboard is shown of a trial that has ended, beside `for_people`.

    `none` is the probe without a head as far as it is known then, over which a head's gain is told: the ranking knows it better.
    """
    scores = record.rungs[-1] if record.rungs else None
    noted = {
        "gain": _gain(record, none),
        "reason": record.reason,
        "knn": scores.knn if scores is not None else None,
        "linear": scores.linear if scores is not None else None,
    }
    return {key: value for key, value in finite(noted).items() if value is not None}


def _gain(record: TrialRecord, none: float | None) -> float | None:
    if none is None or record.control == "none" or record.state != "complete" or record.stage != "proxy":
        return None
    probe = probe_score(record.rungs[-1])
    return None if probe is None else probe - none


def outcome(record: TrialRecord) -> dict[str, Any]:
    """How a trial ended."""
    plain = record.to_dict()
    return {name: plain[name] for name in _OUTCOME}


def attributes(trial: FrozenTrial) -> dict[str, Any]:
    """All that is noted on a trial, for people and for the search."""
    return {**trial.user_attrs, **trial.system_attrs}


def decode(number: int, noted: Mapping[str, Any]) -> TrialRecord | None:
    """The record in a trial's attributes; None for a trial that somebody else put into the study."""
    if "trial" not in noted:
        return None
    rungs = [
        {key: value for key, value in rung.items() if key not in ("objectives", "go_on")}
        for rung in noted.get("rungs", [])
    ]
    outcome = noted.get("outcome") or {**dict.fromkeys(_OUTCOME), "state": "running", "rungs": rungs}
    return TrialRecord.from_dict({"number": number, "head_id": noted["head_id"], **noted["trial"], **outcome})
