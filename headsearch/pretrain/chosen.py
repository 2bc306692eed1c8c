"""From a head as people give it to a pretraining: of a search, with the base that it was chosen for, or only described, on a base that they name.

A description becomes what a `head.yaml` holds: canonical for the base, with facts about that, its cost in place of scores, and no
provenance. From there on nothing tells the two apart.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from headsearch.document import shorten
from headsearch.errors import ExperimentError, HeadError
from headsearch.export import BaseFacts, ExportedBase, ExportedHead, HeadSource, given_head
from headsearch.heads import Candidate, HeadConfig, parse_head
from headsearch.plugins import load_plugins
from headsearch.pretrain.recipe import PretrainSpec


def pretraining_of(
    head: HeadSource | None,
    *,
    base: Mapping[str, Any] | None = None,
    data: str | None = None,
    overrides: Sequence[str] = (),
    plugins: Sequence[str] = (),
    without_head: bool = False,
) -> PretrainSpec:
    """The pretraining of one head, or of a base alone, where that is named and `without_head`. Arguments and errors are those of `chosen_heads`."""
    if head is not None:
        [exported] = chosen_heads([head], base=base, data=data, overrides=overrides, plugins=plugins)
        return PretrainSpec.from_head(exported, data=data, overrides=overrides, without_head=without_head)
    if not without_head:
        raise ExperimentError(
            "no head; expected a head.yaml, a description such as {convnext: {depth: 3}}, or --no-head"
        )
    if base is None:
        raise ExperimentError("no head.yaml and no base; expected the base's name (--base)")
    load_plugins(plugins)
    return _plain({"base": dict(base)}, data, overrides, plugins)


def chosen_heads(
    heads: Sequence[HeadSource],
    *,
    base: Mapping[str, Any] | None = None,
    data: str | None = None,
    overrides: Sequence[str] = (),
    plugins: Sequence[str] = (),
) -> list[ExportedHead]:
    """Heads on their bases. Imports torch where one is put on a base that it was not chosen for.

    Args:
        heads: of searches, or described.
        base: what all of them are put on: keys of `base`, as in an experiment. None: each on its own; those that are described on that of the first that
            is not.
        data: as `PretrainSpec.from_head` takes it. None: those that the first of a search was chosen on.
        overrides: of the pretraining.
        plugins: files or names of plug-ins that heads, method or data need.

    Raises:
        UserError: a head, plug-in or setting cannot be used; no base is named; the base cannot be built or carry the head; a step needs more memory than is free.
    """
    load_plugins(plugins)
    given = [given_head(head) for head in heads]
    exported = [each for each in given if isinstance(each, ExportedHead)]
    named = list(dict.fromkeys([*(name for each in exported for name in each.plugins), *plugins]))
    if base is None:
        if not exported:
            raise ExperimentError(
                f"'{shorten(str(heads[0]))}' describes a head and no base; expected the base's name beside it (--base)"
            )
        origin = exported[0]
        found = [
            each if isinstance(each, ExportedHead) else _placed(each, _shown(head), origin.base, like=origin)
            for head, each in zip(heads, given, strict=True)
        ]
        return [each.model_copy(update={"plugins": named}) for each in found]
    # What a search chose the first of them on, but for the base and its code.
    former = exported[0].model_dump(include={"data", "method"}) if exported else {}
    spec = _plain({**former, "base": dict(base)}, data, overrides, named)
    return _on_another_base(heads, given, spec)


def _plain(
    content: Mapping[str, Any], data: str | None, overrides: Sequence[str], plugins: Sequence[str]
) -> PretrainSpec:
    """A pretraining without a head."""
    spec = PretrainSpec.of({**content, "plugins": list(plugins)}, data=data, overrides=overrides)
    if "dataset" not in spec.data.model_fields_set:
        raise ExperimentError("no images; expected a folder, an .npz file, or a data set's name (--data)")
    spec.check_paths()
    return spec


def _on_another_base(
    heads: Sequence[HeadSource], given: Sequence[ExportedHead | HeadConfig], spec: PretrainSpec
) -> list[ExportedHead]:
    """The heads on the base of `spec`, each found to fit into memory."""
    from headsearch.methods import build_method
    from headsearch.training.devices import autocast_dtype, resolve_device
    from headsearch.training.materials import empty_base_of
    from headsearch.training.memory import check_step_memory, free_memory

    recipe = spec.recipe
    device = resolve_device(recipe.device, "recipe.device")
    empty = empty_base_of(spec.base, spec.data)
    base = ExportedBase(**spec.base.model_dump(), info=BaseFacts.of(empty.info))
    like = ExportedHead(
        head_id="none",
        config={},
        plugins=spec.plugins,
        base=base,
        data=spec.data,
        method=spec.method,
        scores={},
    )
    found = []
    for head, each in zip(heads, given, strict=True):
        config = parse_head(each.config) if isinstance(each, ExportedHead) else each
        placed = _placed(config, _shown(head), base, like=like)
        check_step_memory(
            empty,
            [Candidate.of(single, empty.info) for single in parse_head(placed.config).heads],
            build_method(spec.method.name, width=empty.info.width, **spec.method.kwargs),
            images=max(1, recipe.batch_size // recipe.accumulate // int(os.environ.get("WORLD_SIZE", "1"))),
            halved=autocast_dtype(recipe.precision, device) is not None,
            free=free_memory(device),
        )
        found.append(placed)
    return found


def _placed(config: HeadConfig, shown: str, base: ExportedBase, *, like: ExportedHead) -> ExportedHead:
    """A described head as one that was chosen for `base`, with all else as `like` has it."""
    from headsearch.heads.build import check_guests
    from headsearch.scoring.cost import head_cost

    info = base.base_info()
    try:
        candidate = Candidate.of(config, info)
    except HeadError as error:
        raise HeadError(f"{shown} on {base.model}: {error}") from None
    described = candidate.config.to_dict()
    if described is None:
        raise HeadError(f"{shown}: no head; expected a family, or --no-head for the control")
    check_guests([stage.family for single in candidate.config.heads for stage in single], info)
    cost = head_cost(candidate.config, info)
    return ExportedHead(
        head_id=candidate.head_id,
        config=described,
        plugins=like.plugins,
        base=base,
        data=like.data,
        method=like.method,
        scores={"params": cost.params, "flops": cost.flops},
    )


def _shown(head: HeadSource) -> str:
    return head.head_id if isinstance(head, ExportedHead) else shorten(str(head))
