"""The schema of a whole experiment."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, model_validator

from headsearch.document import to_yaml
from headsearch.errors import ExperimentError
from headsearch.experiment.budget import with_budget
from headsearch.experiment.search import SearchSpec
from headsearch.experiment.sections import (
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
    with_trunk,
)
from headsearch.plugins import digests


class Experiment(Section):
    """Everything that decides the outcome of a search."""

    experiment: Literal["headsearch/experiment@1"] = "headsearch/experiment@1"
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "headsearch"
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

    @model_validator(mode="before")
    @classmethod
    def _rungs_suit_the_stopping(cls, data: Any) -> Any:
        # Here and not in the proxy's own section, because it takes two sections to know.
        if not isinstance(data, dict):
            return data
        proxy, search = data.get("proxy", {}), data.get("search", {})
        if not isinstance(proxy, dict) or not isinstance(search, dict) or proxy.get("rungs"):
            return data
        stopping = search.get("stopping", {"kind": "asha"})
        epochs = proxy.get("epochs", ProxySpec.model_fields["epochs"].default)
        if isinstance(stopping, dict) and stopping.get("kind") == "asha" and is_count(epochs):
            return {**data, "proxy": {**proxy, "rungs": default_rungs(epochs, stopping=True)}}
        return data

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

    @model_validator(mode="before")
    @classmethod
    def _the_budget_pays_the_trunk(cls, data: Any) -> Any:
        # Here, and before all else, because the search's own section does not know what a trunk costs; what is left open is then sized as without one.
        data = with_trunk(data)
        if not isinstance(data, dict):
            return data
        proxy, search = data.get("proxy", {}), data.get("search", {})
        if not isinstance(proxy, dict) or not isinstance(search, dict):
            return data
        trunk, budget = proxy.get("trunk"), search.get("budget")
        epochs = proxy.get("epochs", ProxySpec.model_fields["epochs"].default)
        controls = search.get("controls", SearchSpec().controls)
        if (
            not isinstance(trunk, dict)
            or not is_count(trunk.get("epochs"))
            or not is_count(epochs)
            or not isinstance(budget, int | float)
            or isinstance(budget, bool)
            or not isinstance(controls, list)
            or search.get("strategy", "funnel") != "funnel"
        ):
            return data
        try:
            sized = with_budget(search, float(budget), controls=len(controls), trunk=trunk["epochs"] / epochs)
        except ValueError as error:
            raise ExperimentError(f"search.{error}") from None
        return {**data, "search": sized}

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
