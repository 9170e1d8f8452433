"""Choose the layers to remove, from an audit.

Adding a strategy: a file with a `Strategy` bound to `STRATEGY`, and its name in `settings.StrategyName`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.lazy import lazy_exports

if TYPE_CHECKING:
    from shoal.selection.choose import get, layer_count, manual, select
    from shoal.selection.mergekit import mergekit_yaml
    from shoal.selection.settings import REGISTRY

__all__ = ["REGISTRY", "get", "layer_count", "manual", "mergekit_yaml", "select"]

__getattr__ = lazy_exports(
    __name__,
    {
        **dict.fromkeys(("get", "layer_count", "manual", "select"), "choose"),
        "REGISTRY": "settings",
        "mergekit_yaml": "mergekit",
    },
)
