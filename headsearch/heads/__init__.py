"""Heads: what they are as data (`HeadConfig`), the families they are made of, their canonical form, and how to build them.

Importing this package is light; `headsearch.heads.build` imports torch and timm.
"""

from headsearch.heads.candidate import Candidate
from headsearch.heads.canonical import canonical, canonical_or_none, head_id
from headsearch.heads.common import COMMON_PARAMETERS
from headsearch.heads.config import HeadConfig, Scalar, Stage
from headsearch.heads.family import BlockSpec, Family, Parameter
from headsearch.heads.registry import FAMILIES, family, parse_head, validate_stage

__all__ = [
    "COMMON_PARAMETERS",
    "FAMILIES",
    "BlockSpec",
    "Candidate",
    "Family",
    "HeadConfig",
    "Parameter",
    "Scalar",
    "Stage",
    "canonical",
    "canonical_or_none",
    "family",
    "head_id",
    "parse_head",
    "validate_stage",
]
