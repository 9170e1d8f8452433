"""How deep a model is, as its files say: known at once, without torch and without the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shoal.models.families.table import supported
from shoal.models.lineage import ADAPTERS_FILE
from shoal.models.meta_model import CONFIG


def stated_depth(folder: Path) -> int | None:
    """Number of decoder layers; None where the files do not say it, or are of a class that Shoal does not know."""
    is_adapters = (folder / ADAPTERS_FILE).is_file()
    try:
        stated: Any = json.loads((folder / (ADAPTERS_FILE if is_adapters else CONFIG)).read_text(encoding="utf-8"))
        classes = stated.get("architectures") or []
    except (OSError, ValueError, AttributeError):
        return None  # whoever loads the model says what is wrong
    fields = {support.class_name: support.depth_field for support in supported()}
    path = "decoder_layers" if is_adapters else next((fields[name] for name in classes if name in fields), "")
    for key in path.split("."):
        stated = stated.get(key) if isinstance(stated, dict) else None
    return stated if isinstance(stated, int) else None
