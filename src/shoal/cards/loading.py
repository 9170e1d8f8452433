"""How a checkpoint is loaded: lines that run in its folder, or with its name on the Hub in place of the dot."""

from __future__ import annotations

from pathlib import Path

from shoal.schema import read_json

CONFIG = "config.json"
READERS = {
    "AutoProcessor": ("processor_config.json", "preprocessor_config.json"),
    "AutoTokenizer": ("tokenizer_config.json", "tokenizer.json"),
}
"""What makes the model's input, and the files that it is read from; a processor brings its tokenizer along."""
WITH_SHOAL = 'import shoal\n\nmodel = shoal.load(".").model'


def loading_lines(path: Path, base: Path | None, base_name: str | None) -> str:
    """Python that loads the checkpoint in the working directory; empty where its folder does not tell its class.

    Args:
        path: its folder.
        base: the folder of the base, if it is an adapter alone.
        base_name: what the adapter calls that.
    """
    if base is None:
        return _whole(path, ".") if (path / CONFIG).is_file() else WITH_SHOAL
    if base_name is None or base_name.startswith("pkg:") or not (base / CONFIG).is_file():
        return WITH_SHOAL
    whole = _whole(base, base_name)
    adapted = f'from peft import PeftModel\n{whole}\nmodel = PeftModel.from_pretrained(model, ".")'
    return adapted if whole else WITH_SHOAL


def _whole(folder: Path, name: str) -> str:
    """By the class that the config names; by an automatic one where the class comes with the folder."""
    config = read_json(folder / CONFIG)
    own_code = config.get("auto_map") or {}
    classes = [key for key in ("AutoModelForCausalLM", *own_code) if key in own_code] or config.get("architectures")
    if not classes:
        return ""
    trust = ", trust_remote_code=True" if own_code else ""
    readers = [reader for reader, files in READERS.items() if any((folder / file).is_file() for file in files)][:1]
    lines = [f"from transformers import {', '.join(sorted([classes[0], *readers]))}", ""]
    for loader in (classes[0], *readers):
        variable = "model" if loader == classes[0] else loader.removeprefix("Auto").lower()
        lines.append(f'{variable} = {loader}.from_pretrained("{name}"{trust})')
    return "\n".join(lines)
