"""Load a checkpoint as a stranger would, and say whether it is what it should be.

Run by `shoal.pruning.verify` as `python -I verify_child.py PLACE…`, in a process of its own. Each PLACE holds
`expected.safetensors` and `expected.json`, which names the checkpoint's folder, and gets `result.json`. It
imports torch, transformers, safetensors and psutil (and PEFT for an adapter), and makes sure that nothing imports
Shoal. The checks, in order (the first ones stop the later ones when there is nothing left to look at):

- `load`: the stock class loads the folder.
- `keys`: no missing, unexpected or mismatched weights.
- `depth`: config and layer list have the expected number of layers.
- `config`: every per-layer field has the expected value.
- `tensors`: every tensor of the state dict equals the one in memory, bit by bit (SHA-256).
- `adapter` (only where one is to be checked; the folder is its base then): PEFT puts it in, its tensors are those in
  memory, and what follows is checked with it. `tensors` leaves out the modules that it replaces.
- `logits`: equal to those in memory, at every position that is not padding.
- `round_trip`: saved, loaded and saved again, it has the same tensors and the same files (not for an adapter).
- `cache`: greedy decoding with a cache gives the tokens and logits that it gives without.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

LOGITS_TOLERANCE = 1e-5
"""Largest difference to the logits in memory, times max(1, largest absolute logit)."""
CACHE_TOLERANCE = 1e-4
"""The same between cached and uncached decoding, whose matrix products have other shapes."""
NEW_TOKENS = 4
KEYS = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
MISSING = ("missing_keys", "mismatched_keys", "error_msgs")
"""The same without weights that are left over: a base is as it is."""

Check = dict[str, Any]


def main(*job_folders: str) -> None:
    """Check the checkpoint that each of `places` asks for, and leave the list of checks there."""
    # A checkpoint whose custom code needs Shoal does not stand alone: any such import fails.
    sys.modules["shoal"] = None  # type: ignore[assignment]
    for job_folder in map(Path, job_folders):
        expected = json.loads((job_folder / "expected.json").read_text(encoding="utf-8"))
        torch.set_num_threads(expected["threads"])
        tensors = load_file(job_folder / "expected.safetensors", device=expected["device"])
        checks = checkpoint_checks(Path(expected["folder"]), expected, tensors)
        (job_folder / "result.json").write_text(json.dumps(checks), encoding="utf-8")


def checkpoint_checks(folder: Path, expected: dict[str, Any], tensors: dict[str, Tensor]) -> list[Check]:
    """All checks of `folder`.

    Args:
        folder: the checkpoint.
        expected: `Expectation.facts` of `shoal.pruning.verify`.
        tensors: `Expectation.tensors`, on the device where the model is to run.
    """
    return list(_checks(folder, expected, _cases(tensors)))


def _cases(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """`{"padded/input_ids": …}` → `{"padded": {"input_ids": …}}`."""
    cases: dict[str, dict[str, Tensor]] = {}
    for path, tensor in tensors.items():
        case, name = path.split("/", 1)
        cases.setdefault(case, {})[name] = tensor
    return cases


def _checks(folder: Path, expected: dict[str, Any], cases: dict[str, dict[str, Tensor]]) -> Iterator[Check]:
    try:
        model, report = _load(folder, expected.get("dtype", "auto"))
    except Exception as error:
        yield _check("load", False, f"{type(error).__name__}: {' '.join(str(error).split())[:400]}")
        return
    yield _check("load", True, f"{type(model).__name__} from transformers {transformers.__version__}")
    adapter = expected.get("adapter")
    yield _keys(report, KEYS if adapter is None else MISSING)
    yield _depth(model, expected)
    yield _config(model, expected)
    yield _tensors(model, expected, left_out=[] if adapter is None else adapter["modules"])
    if adapter is not None:
        yield (check := _guarded("adapter", lambda: _adapter(model, adapter)))
        if not check["passed"]:
            return
    model = model.to(expected["device"]).eval()
    with torch.no_grad():
        yield _guarded("logits", lambda: _logits(_answering(model, expected), cases))
        if adapter is None:
            yield _guarded("round_trip", lambda: _round_trip(model, folder, expected))
        if expected["cache_case"] is None:
            return
        yield _guarded("cache", lambda: _cache_in_float(model, cases[expected["cache_case"]], expected))


def _answering(model: Any, expected: dict[str, Any]) -> Any:
    """The part that hears and answers in text."""
    return model.get_submodule(expected["answering_path"])


def _adapter(model: Any, expected: dict[str, Any]) -> Check:
    """Put the adapter into `model`, in place, as PEFT does."""
    from peft import PeftModel, get_peft_model_state_dict

    adapted = PeftModel.from_pretrained(model, expected["folder"], torch_device="cpu")
    # As it is written, whatever the size of the base's vocabulary: that question would go to the Hub.
    tensors = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    return _equal("adapter", tensor_digests(tensors), expected["tensors"])


def _load(folder: Path, dtype: str = "auto") -> tuple[Any, dict[str, Any]]:
    """The model by the class that its own config names, and transformers' loading report."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    code = config.get("auto_map") or {}
    name = (config.get("architectures") or [""])[0]
    if code:
        auto = "AutoModelForCausalLM" if "AutoModelForCausalLM" in code else "AutoModel"
        loader = getattr(transformers, auto)
    else:
        loader = getattr(transformers, name, transformers.AutoModelForCausalLM)
    options = {"trust_remote_code": True} if code else {}
    if not hasattr(loader, "load_speakers"):
        return loader.from_pretrained(folder, output_loading_info=True, dtype=dtype, **options)
    # Its own `from_pretrained` loads the voices too, and takes the pair of model and report for the model.
    general: Any = transformers.PreTrainedModel.from_pretrained
    model, report = general.__func__(loader, folder, output_loading_info=True, dtype=dtype)
    model.load_speakers(folder / "spk_dict.pt")
    return model, report


def _keys(report: dict[str, Any], kinds: tuple[str, ...] = KEYS) -> Check:
    listed = {kind.removesuffix("_keys"): sorted(str(key) for key in report.get(kind) or ()) for kind in kinds}
    wrong = {kind: keys for kind, keys in listed.items() if keys}
    detail = "; ".join(f"{len(keys)} {kind}, such as {keys[0]}" for kind, keys in wrong.items())
    return _check("keys", not wrong, detail or "none missing, unexpected or mismatched")


def _depth(model: Any, expected: dict[str, Any]) -> Check:
    layers = len(model.get_submodule(expected["layers_path"]))
    stated = getattr(_decoder_config(model, expected), expected["depth_field"], None)
    detail = f"{stated} stated, {layers} there, {expected['depth']} expected"
    return _check("depth", stated == layers == expected["depth"], detail)


def _decoder_config(model: Any, expected: dict[str, Any]) -> Any:
    config = model.config
    for name in expected["config_path"]:
        config = getattr(config, name)
    return config


def _config(model: Any, expected: dict[str, Any]) -> Check:
    config = _decoder_config(model, expected)
    # Through JSON, so that a tuple equals the list it becomes on disk.
    actual = json.loads(json.dumps({name: getattr(config, name, None) for name in expected["fields"]}))
    wrong = [name for name, value in expected["fields"].items() if actual[name] != value]
    detail = "; ".join(f"{name} is {actual[name]}, not {expected['fields'][name]}" for name in wrong)
    return _check("config", not wrong, detail or f"{', '.join(expected['fields'])} as expected")


def _tensors(model: Any, expected: dict[str, Any], left_out: Sequence[str] = ()) -> Check:
    inside = tuple(f"{module}." for module in left_out)
    actual = {name: digest for name, digest in digests(model).items() if not name.startswith(inside)}
    return _equal("tensors", actual, expected["tensors"])


def _equal(name: str, actual: dict[str, str], expected: dict[str, str]) -> Check:
    wrong = sorted(name for name in actual.keys() | expected.keys() if actual.get(name) != expected.get(name))
    detail = f"{len(wrong)} of {len(expected)} differ, such as {wrong[0]}" if wrong else f"{len(expected)} identical"
    return _check(name, not wrong, detail)


def digests(model: torch.nn.Module) -> dict[str, str]:
    """SHA-256 over dtype, shape and bytes of every tensor of the state dict."""
    return tensor_digests(model.state_dict())


def tensor_digests(tensors: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 over dtype, shape and bytes of every tensor."""
    digests_by_name = {}
    for name, tensor in tensors.items():
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(flat.numpy())
        digests_by_name[name] = digest.hexdigest()
    return digests_by_name


def _logits(model: Any, cases: dict[str, dict[str, Tensor]]) -> Check:
    worst, scale = 0.0, 1.0
    compared = {name: case for name, case in cases.items() if "expected_logits" in case}
    if not compared:
        return _check("logits", False, "there is nothing to compare with")
    for case in compared.values():
        expected = case["expected_logits"]
        logits = model(**_inputs(case), use_cache=False).logits.float()
        if logits.shape != expected.shape:
            return _check("logits", False, f"shape {tuple(logits.shape)}, not {tuple(expected.shape)}")
        counted = _counted(case, logits)
        worst = max(worst, _distance(logits[counted], expected[counted]))
        scale = max(scale, expected[counted].abs().max().item())
    detail = f"{len(compared)} batches: {', '.join(compared)}; scale {scale:.3g}"
    return _compared("logits", worst, LOGITS_TOLERANCE * scale, detail)


def _round_trip(model: Any, folder: Path, expected: dict[str, Any]) -> Check:
    """Save, load what was saved, save that: the tensors are still those in memory, the files those of before."""
    if getattr(model, "_hf_peft_config_loaded", False):
        return _check("round_trip", True, "not done: a stock class cannot write a model with its adapter loaded")
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if shutil.disk_usage(folder).free < 2.1 * size:
        return _check("round_trip", True, f"not done: it needs {2.1 * size / 2**30:.1f} GiB of free disk")
    if psutil.virtual_memory().available < 1.2 * size:
        return _check("round_trip", True, f"not done: it needs {1.2 * size / 2**30:.1f} GiB of free memory")
    with tempfile.TemporaryDirectory(prefix=".shoal-round-trip-", dir=folder.parent) as scratch:
        first, second = Path(scratch, "first"), Path(scratch, "second")
        model.save_pretrained(first)
        _add_left_behind(folder, first)
        again, report = _load(first)
        again.save_pretrained(second)
        _add_left_behind(folder, second)
        keys, tensors = _keys(report), _tensors(again, expected)
        differing = sorted(_files(first) ^ _files(second))
    if not (keys["passed"] and tensors["passed"]):
        return _check("round_trip", False, f"keys: {keys['detail']}; tensors: {tensors['detail']}")
    detail = f"{differing[0][0]} differs" if differing else "saved, loaded and saved again: nothing changed"
    return _check("round_trip", not differing, detail)


def _add_left_behind(folder: Path, copy: Path) -> None:
    """What loading needs and saving leaves behind: the checkpoint's own code, voices, and its dtype."""
    for path in (*folder.glob("*.py"), *folder.glob("spk_dict.pt")):
        shutil.copyfile(path, copy / path.name)
    # Saving notes the dtype of the first parameter, which some classes keep in float32 in a model of half precision.
    path = copy / "config.json"
    config, own = (json.loads((root / path.name).read_text(encoding="utf-8")) for root in (copy, folder))
    if own.get("dtype"):
        path.write_text(json.dumps(config | {"dtype": own["dtype"]}, indent=2), encoding="utf-8")


def _files(folder: Path) -> set[tuple[str, str]]:
    """(name, SHA-256) of every file."""
    digests = set()
    for path in (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        with path.open("rb") as file:
            digests.add((str(path.relative_to(folder)), hashlib.file_digest(file, "sha256").hexdigest()))
    return digests


def _cache_in_float(model: Any, case: dict[str, Tensor], expected: dict[str, Any]) -> Check:
    """In float32: half precision rounds cached and uncached products differently, so that close tokens may swap."""
    growth = sum(4 * tensor.numel() - tensor.nbytes for tensor in model.parameters() if tensor.is_cpu)
    if psutil.virtual_memory().available < 1.1 * growth:
        return _check("cache", True, f"not done: it needs {1.1 * growth / 2**30:.1f} GiB of free memory")
    return _cache(_answering(model.float(), expected), case, expected["generate_options"])


def _cache(model: Any, case: dict[str, Tensor], options: dict[str, Any]) -> Check:
    inputs = {key: _single(value) for key, value in _inputs(case).items()}
    cached, uncached = (_decoded(model, inputs, use_cache=use, **options) for use in (True, False))
    if not torch.equal(cached.sequences, uncached.sequences):
        first = (cached.sequences != uncached.sequences).nonzero()[0].tolist()
        return _check("cache", False, f"tokens differ from (row, position) {tuple(first)} on")
    pairs = list(zip(cached.logits, uncached.logits, strict=True))
    worst = max(_distance(a, b) for a, b in pairs)
    scale = max(1.0, *(b.abs().max().item() for _, b in pairs))
    return _compared("cache", worst, CACHE_TOLERANCE * scale, f"{NEW_TOKENS} greedy tokens, equal")


def _decoded(model: Any, inputs: dict[str, Tensor], *, use_cache: bool, **options: Any) -> Any:
    return model.generate(
        **inputs,
        do_sample=False,
        num_beams=1,
        min_new_tokens=NEW_TOKENS,
        max_new_tokens=NEW_TOKENS,
        use_cache=use_cache,
        output_logits=True,
        return_dict_in_generate=True,
        **options,
    )


def _inputs(case: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in case.items() if name != "expected_logits"}


def _single(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _counted(case: dict[str, Tensor], logits: Tensor) -> Tensor:
    """(B, T) bool: the positions that are not padding."""
    mask = case.get("decoder_attention_mask", case.get("attention_mask"))
    return torch.ones(logits.shape[:2], dtype=torch.bool) if mask is None else mask.bool()


def _distance(a: Tensor, b: Tensor) -> float:
    """Largest absolute difference; infinite where either is not finite."""
    difference = (a.float() - b.float()).abs().max().item()
    return difference if difference == difference else float("inf")


def _compared(name: str, worst: float, tolerance: float, detail: str) -> Check:
    finite = worst if worst < float("inf") else None
    text = f"largest difference {worst:.3g}, allowed {tolerance:.3g} ({detail})"
    return _check(name, worst <= tolerance, text) | {"difference": finite, "tolerance": tolerance}


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except Exception as error:
        return _check(name, False, f"{type(error).__name__}: {' '.join(str(error).split())[:400]}")


def _check(name: str, passed: bool, detail: str) -> Check:
    return {"name": name, "passed": passed, "detail": detail}


if __name__ == "__main__":
    main(*sys.argv[1:])
