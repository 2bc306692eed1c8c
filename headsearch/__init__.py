"""headsearch: find the auxiliary head that makes a base vision model better, before anyone pays for pretraining."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headsearch.export import load_head as load_head
    from headsearch.export import load_heads as load_heads
    from headsearch.pair import HSSLPair as HSSLPair

__version__ = "0.1.0"
__all__ = ["HSSLPair", "__version__", "load_head", "load_heads"]


def __getattr__(name: str) -> Any:
    # Imported when asked for: `headsearch --help` must not wait for torch.
    if name in ("load_head", "load_heads"):
        from headsearch import export

        return getattr(export, name)
    if name == "HSSLPair":
        from headsearch.pair import HSSLPair

        return HSSLPair
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
