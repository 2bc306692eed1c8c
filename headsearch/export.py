"""`head.yaml`: the chosen head with everything that a full pretraining needs, and how to build a module from it.

The file is plain data, meant to be read and kept under version control: the head's canonical config, the base and method that it
was chosen for, its scores with their intervals, and where they come from.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field

from headsearch.base.info import BaseInfo
from headsearch.document import parse, plain, read_mapping, refuse_another, shorten, to_yaml
from headsearch.errors import HeadError, PluginError, RunError, did_you_mean
from headsearch.experiment.sections import BaseSpec, Code, DataSpec, MethodSpec, Plugins, Section
from headsearch.heads.config import HeadConfig
from headsearch.heads.registry import FAMILIES, PRESETS, parse_head
from headsearch.plugins import digests, load_plugins, located

if TYPE_CHECKING:
    from headsearch.experiment import Experiment
    from headsearch.heads.build import Head
    from headsearch.results.records import TrialRecord
    from headsearch.results.row import RankRow
    from headsearch.runs.directory import RunFacts
    from headsearch.runs.run import Run

VERSION: Literal["headsearch/head@1"] = "headsearch/head@1"


_Size = Annotated[int, Field(ge=1)]


class BaseFacts(Section):
    """`headsearch.base.info.BaseInfo`: what a head has to fit."""

    model: str
    family: str
    width: _Size
    grid: Annotated[list[_Size], Field(min_length=2, max_length=2)]
    embedding_dim: _Size
    depth: _Size
    params: _Size
    flops: _Size
    image_size: _Size
    stage: Annotated[int, Field(exclude_if=lambda stage: stage == -1)] = -1
    channels: Annotated[int, Field(ge=1, exclude_if=lambda channels: channels == 3)] = 3

    @classmethod
    def of(cls, info: BaseInfo) -> Self:
        """The facts as a file holds them."""
        return cls(**{**asdict(info), "grid": list(info.grid)})

    def base_info(self) -> BaseInfo:
        """The facts as the rest of the package knows them."""
        height, width = self.grid
        return BaseInfo(**self.model_dump(exclude={"grid"}), grid=(height, width))


class ExportedBase(BaseSpec):
    """The base that the head was chosen for."""

    info: BaseFacts

    def base_info(self) -> BaseInfo:
        """As `BaseFacts.base_info`."""
        return self.info.base_info()


class Provenance(Section):
    """Where the scores come from."""

    experiment: str
    seed: int
    space: str
    space_hash: str
    versions: dict[str, str]
    trials: list[int]
    """Numbers of the trials behind the scores."""


class ExportedHead(Section):
    """The content of a `head.yaml`."""

    head: Literal["headsearch/head@1"] = VERSION
    head_id: str
    config: dict[str, Any] | list[dict[str, Any]]
    plugins: Plugins = Field(default_factory=list)
    code: Code = Field(default_factory=dict)
    """Digests of plug-ins and base as they were in the search. A file that has changed since is refused, unless its line is deleted."""
    base: ExportedBase
    data: DataSpec
    """The images that the head was chosen on."""
    method: MethodSpec
    scores: dict[str, bool | int | float | str | None]
    """The head's row of `headsearch rank`; unknown is null."""
    provenance: Annotated[Provenance | None, Field(exclude_if=lambda provenance: provenance is None)] = None
    """None: no search has chosen the head."""

    def to_yaml(self) -> str:
        """The file's text."""
        return to_yaml(self.model_dump(mode="json"))

    def __repr__(self) -> str:
        return f"<{self.head_id} for {self.base.model}>"


def export_head(
    run: Run | str | Path, out: Path, *, rank: int = 1, head_id: str | None = None
) -> ExportedHead:
    """Write a head of a run to `out`.

    Args:
        run: a run, or its directory.
        out: the file to write; written whole or not at all.
        rank: position in the default ranking, from 1.
        head_id: the name of a head, instead of a rank; a control also as `same` or `mlp`.

    Raises:
        RunError: no such head, or a file that cannot be written.
    """
    from headsearch.files import write_atomically
    from headsearch.runs.run import Run, read_run

    exported = chosen_head(run if isinstance(run, Run) else read_run(run), rank=rank, head_id=head_id)
    try:
        write_atomically(out, exported.to_yaml())
    except OSError as error:
        raise RunError(f"{out}: cannot be written: {error.strerror}") from None
    return exported


def chosen_head(run: Run, *, rank: int = 1, head_id: str | None = None) -> ExportedHead:
    """What `export_head` writes of a run. Raises `RunError` where there is no such head."""
    if run.experiment is None or run.facts is None:
        raise RunError(run.problems[0])
    row = _chosen(run.path, run.rows, rank, head_id)
    if not row.config:
        raise RunError(
            f"{run.path}: '{row.head_id}' is plain self-supervised learning without a head: nothing to export"
        )
    return describe_head(run.experiment, run.facts, run.records, row)


def describe_head(
    experiment: Experiment, facts: RunFacts, records: Iterable[TrialRecord], row: RankRow
) -> ExportedHead:
    """The content of the `head.yaml` of a ranked head or control, which has a config.

    Args:
        experiment: of the run.
        facts: of the run.
        records: every trial of the run.
        row: the head's row in its ranking.
    """
    assert row.config, "the control none has no head to export"
    return ExportedHead(
        head_id=row.head_id,
        config=row.config,
        plugins=experiment.plugins,
        code=dict(facts.code),
        base=ExportedBase(**experiment.base.model_dump(), info=BaseFacts.of(facts.base)),
        data=DataSpec(**experiment.data.model_dump(exclude={"subset"})),
        method=experiment.method,
        scores={key: value for key, value in row.to_dict().items() if key not in ("head_id", "config")},
        provenance=Provenance(
            experiment=experiment.name,
            seed=experiment.seed,
            space=Path(experiment.search.space).stem,
            space_hash=facts.space_hash,
            versions=dict(facts.versions),
            trials=[record.number for record in records if record.head_id == row.head_id],
        ),
    )


def _chosen(run: Path, rows: Sequence[RankRow], rank: int, head_id: str | None) -> RankRow:
    if head_id is not None:
        found = next((row for row in rows if head_id in (row.head_id, row.control)), None)
        if found is None:
            known = [name for row in rows if row.config for name in (row.head_id, row.control) if name]
            raise RunError(f"{run}: no head '{head_id}'{did_you_mean(head_id, known)}")
        return found
    found = next((row for row in rows if row.rank == rank), None)
    if found is None:
        ranked = sum(row.rank is not None for row in rows)
        raise RunError(f"{run}: no head at rank {rank}; {ranked} are ranked")
    return found


def read_head(path: str | Path) -> ExportedHead:
    """Read and check a `head.yaml`.

    Raises:
        HeadError: one line that says what is wrong with the file, e.g. an unknown field, or a config that was changed by hand
            and no longer is the head that its `head_id` names.
    """
    from headsearch.experiment.schema_errors import checked
    from headsearch.heads.canonical import canonical, head_id

    expected = "a head.yaml (headsearch export writes one)"
    root = read_mapping(Path(path), HeadError, expected)
    refuse_another(root, "head", expected)
    exported = checked(ExportedHead, plain(root), str(path), HeadError, root=root)
    exported = _with_its_code(exported, Path(path))
    try:
        actual = head_id(canonical(parse_head(exported.config), exported.base.base_info()))
    except HeadError as error:
        raise HeadError(f"{path}: config: {error}") from None
    if actual != exported.head_id:
        raise HeadError(
            f"{path}: config describes {actual}, but head_id says {exported.head_id}; was one edited by hand?"
        )
    return exported


def _with_its_code(exported: ExportedHead, path: Path) -> ExportedHead:
    """The head with its plug-ins loaded. They and the base lie where they did in the search, or beside the file. Raises `PluginError`."""
    plugins = [located(name, path.parent) for name in exported.plugins]
    load_plugins(plugins)
    base = exported.base
    if base.module is not None:
        base = base.model_copy(update={"module": located(base.module, path.parent)})
    found = digests([*plugins, *base.code])
    for name, digest in exported.code.items():
        if found.get(name, digest) != digest:
            raise PluginError(
                f"{path}: {name} has changed since the search; restore it, or delete its line under code to take it as it is"
            )
    return exported.model_copy(update={"plugins": plugins, "base": base})


HeadSource = ExportedHead | str | PathLike[str] | Mapping[str, Any] | Sequence[Any]
"""A head as people give it: a `head.yaml`, its content, or a description, which a text may hold: `{convnext: {depth: 3}}`, `paper`, `convnext`."""


def given_head(head: HeadSource) -> ExportedHead | HeadConfig:
    """A head with the base that it was chosen for, or a description alone.

    Raises:
        HeadError: one line that says what is wrong with the file or the description.

    >>> given_head("paper").family
    'convnext'
    """
    if isinstance(head, ExportedHead):
        return head
    if isinstance(head, PathLike):
        return read_head(fspath(head))
    if isinstance(head, Mapping | list | tuple):
        return parse_head(head)
    if not isinstance(head, str):
        raise HeadError(
            f"head: expected a head.yaml, run.head(), or a description such as {{convnext: {{depth: 3}}}}, got {shorten(repr(head))}"
        )
    if head.lstrip()[:1] in ("{", "[") or ": " in head:
        return parse_head(plain(parse(head, "head", HeadError)))
    if os.path.lexists(head) or head.endswith((".yaml", ".yml")):
        return read_head(head)
    known = [*FAMILIES, *PRESETS]
    if head not in known:
        raise HeadError(
            f"head: '{shorten(head)}' is no file, and no family of heads{did_you_mean(head, known)}"
        )
    return parse_head(head)


def exported_head(head: ExportedHead | str | PathLike[str]) -> ExportedHead:
    """A head that is at hand, or the content of its file. Raises `HeadError` as `read_head`."""
    return head if isinstance(head, ExportedHead) else read_head(fspath(head))


def load_head(head: ExportedHead | str | PathLike[str]) -> Head:
    """The head of a `head.yaml`, or of `headsearch.Run.head`, as a module, freshly initialised.

    It maps the base's last feature map, (B, width, H, W) before the final norm, to a map of the same shape;
    `head.embed(map)` gives its embedding, (B, width).

    Raises:
        HeadError: as `read_head`; where the config cannot be built for the base's width and grid; for a set, which has no single map
            to give: `load_heads` reads those.

    >>> head = load_head("head.yaml")               # doctest: +SKIP
    >>> head(torch.randn(2, 64, 4, 4)).shape        # doctest: +SKIP
    torch.Size([2, 64, 4, 4])
    """
    heads = load_heads(head)
    if len(heads) != 1:
        name = head.head_id if isinstance(head, ExportedHead) else fspath(head)
        raise HeadError(f"{name}: a set of {len(heads)} heads; expected a single one (load_heads reads both)")
    return heads[0]


def load_heads(head: ExportedHead | str | PathLike[str]) -> list[Head]:
    """Every head of a `head.yaml` as a module, freshly initialised: the members of a set in canonical order, or a single head.

    All of them work on the base's own feature map, as `load_head` says, side by side. Raises `HeadError` as `read_head` does.

    >>> [head.config.family for head in load_heads("head.yaml")]        # doctest: +SKIP
    ['convnext', 'mixer']
    """
    from headsearch.heads.build import build_heads

    exported = exported_head(head)
    return build_heads(parse_head(exported.config), exported.base.base_info())
