"""The schema of a whole experiment."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from headsearch.document import shorten, to_yaml
from headsearch.experiment.search import SearchSpec, with_sizes
from headsearch.experiment.sections import (
    TRUNK_PROXIES,
    BaseSpec,
    MethodSpec,
    Plugins,
    ProxySpec,
    SearchedData,
    Section,
    default_rungs,
    is_count,
    is_recorded,
    with_recipe,
)
from headsearch.plugins import digests


def _folder_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(
            f"expected letters, digits, '.', '_' and '-', a letter or digit first, got {shorten(repr(name), 100)}"
        )
    return name


class Experiment(Section):
    """Everything that decides the outcome of a search."""

    experiment: Literal["headsearch/experiment@1"] = "headsearch/experiment@1"
    name: Annotated[str, AfterValidator(_folder_name)] = "headsearch"
    plugins: Plugins = Field(default_factory=list)
    base: BaseSpec = Field(default_factory=BaseSpec)
    data: SearchedData = Field(default_factory=SearchedData)
    method: MethodSpec = Field(default_factory=MethodSpec)
    proxy: ProxySpec
    search: SearchSpec = Field(default_factory=SearchSpec)
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @model_validator(mode="before")
    @classmethod
    def _take_the_methods_recipe(cls, data: Any, info: ValidationInfo) -> Any:
        return with_recipe(data, "proxy", ProxySpec, recorded=is_recorded(info))

    @field_validator("proxy", mode="before")
    @classmethod
    def _auto_asks_for_a_trunk(cls, proxy: Any, info: ValidationInfo) -> Any:
        base = info.data.get("base")
        if base is None or not isinstance(proxy, dict) or proxy.get("trunk") != "auto":
            return proxy
        epochs = proxy.get("epochs", ProxySpec.model_fields["epochs"].default)
        # Weights are a trunk already.
        trained = base.weights is None and is_count(epochs)
        return {**proxy, "trunk": {"epochs": math.ceil(TRUNK_PROXIES * epochs)} if trained else None}

    @field_validator("search", mode="before")
    @classmethod
    def _the_budget_sets_the_sizes(cls, search: Any, info: ValidationInfo) -> Any:
        # Here, because the search's own section does not know what a trunk costs.
        proxy = info.data.get("proxy")
        return search if proxy is None else with_sizes(search, trunk=proxy.trunk_epochs / proxy.epochs)

    @model_validator(mode="after")
    def _rungs_suit_the_stopping(self) -> Self:
        if "rungs" not in self.proxy.model_fields_set and self.search.stopping.kind == "asha":
            rungs = default_rungs(self.proxy.epochs, stopping=True)
            self.__dict__["proxy"] = self.proxy.model_copy(update={"rungs": rungs})
        return self

    @model_validator(mode="after")
    def _a_time_decides_on_the_subset(self) -> Self:
        if self.data.subset == "auto" and not isinstance(self.search.budget, str):
            raise ValueError("data.subset: auto needs search.budget to be a time, like '6 h'")
        return self

    @model_validator(mode="after")
    def _a_trunk_is_no_longer_than_the_pretraining(self) -> Self:
        trunk, target = self.proxy.trunk_epochs, self.search.target_epochs
        if trunk > target:
            raise ValueError(
                f"proxy.trunk: {trunk} epochs are more than the {target} of search.target_epochs, the real pretraining"
            )
        return self

    @model_validator(mode="after")
    def _ranks_have_equal_shares_of_a_batch(self) -> Self:
        if self.proxy.batch_size % self.search.ranks:
            raise ValueError(
                f"proxy.batch_size: {self.proxy.batch_size} images do not divide among the {self.search.ranks} GPUs of "
                "search.executor.gpus_per_trial"
            )
        return self

    @model_validator(mode="after")
    def _late_trainings_tell_what_proxies_do_not(self) -> Self:
        target = self.search.target_epochs
        for key in ("equal_time", "anchors"):
            if getattr(self.search, key) and not self.probes:
                raise ValueError(
                    f"search.{key}: a gain is told by probes: expected labels, and another strategy than screen"
                )
        if self.search.anchors and self.proxy.epochs >= target:
            raise ValueError(
                f"search.anchors: proxies have {self.proxy.epochs} epochs, and search.target_epochs is {target}: there is nothing to predict"
            )
        return self

    @model_validator(mode="after")
    def _more_seeds_of_none_cost_no_trunk(self) -> Self:
        if self.search.replicates_of_none is None and (self.proxy.trunk_epochs or not self.probes):
            # Every seed would have a trunk of its own; and without labels there is no gain to be sure of.
            self.__dict__["search"] = self.search.model_copy(update={"replicates_of_none": 1})
        return self

    @property
    def trunk_cost(self) -> float:
        """What a trunk costs, in proxies; 0 where none is trained."""
        return self.proxy.trunk_epochs / self.proxy.epochs

    @property
    def probes(self) -> bool:
        """Whether trials have a probe: there are labels, and they may be read. A screen reads none."""
        return self.data.labels == "probe" and self.search.strategy != "screen"

    def code(self) -> dict[str, str]:
        """Digests of the code of others that it runs, by file or module. Raises `PluginError` where there is none."""
        return digests([*self.plugins, *self.base.code])

    def to_yaml(self) -> str:
        """The experiment with every key, as YAML."""
        return to_yaml(self.model_dump(mode="json"))
