"""A head with its identity: the canonical description for a base, and the name derived from it. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headsearch.heads.canonical import canonical, head_id
from headsearch.heads.config import HeadConfig

if TYPE_CHECKING:
    from headsearch.base.info import BaseInfo


@dataclass(frozen=True)
class Candidate:
    """A head as it travels through a search, from the space to the study. Made once, by `of`, or read back from a study."""

    config: HeadConfig
    """Canonical for the base; empty for the control `none`."""
    head_id: str
    """The name of that config."""

    @classmethod
    def of(cls, config: HeadConfig, base: BaseInfo | None = None) -> Candidate:
        """The candidate that `config` describes on `base`.

        Raises:
            HeadError: a value is not allowed, or the base cannot carry the head.
        """
        head = canonical(config, base)
        return cls(head, head_id(head))
