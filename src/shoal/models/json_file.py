"""JSON files of a checkpoint folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shoal.errors import ModelError


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON object from `path`.

    Raises:
        ModelError: it cannot be read, or is none.
    """
    try:
        parsed = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"not JSON: {error}"
        raise ModelError(f"cannot be read ({reason})", where=str(path), fix="fetch or write it again") from None
    if not isinstance(parsed, dict):
        raise ModelError("is not a JSON object", where=str(path), fix="fetch or write it again")
    return parsed
