"""The base: the timm model that is to be improved, and what the rest needs to know of it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headsearch.base.model import Base as Base
    from headsearch.base.model import load_base as load_base

__all__ = ["Base", "load_base"]


def __getattr__(name: str) -> Any:
    # Imported when asked for: what is known of a base without torch must not wait for torch.
    if name in __all__:
        from headsearch.base import model

        return getattr(model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
