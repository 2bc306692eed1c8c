"""Search spaces: the YAML language that says which heads may be searched. Reading, counting and sampling need no torch."""

from headsearch.space.loading import load_space, parse_space, shipped_spaces
from headsearch.space.schema import json_schema
from headsearch.space.space import CostFunction, Space

__all__ = [
    "CostFunction",
    "Space",
    "json_schema",
    "load_space",
    "parse_space",
    "shipped_spaces",
]
