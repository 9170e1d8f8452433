"""Whatever is wrong with what the user gives: exit code 2, one line, no traceback, nothing half-written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from speech_llm_parts import tiny

from shoal.cli import main
from shoal.schema import Audit, Plan

Make = Callable[["Kit"], list[str]]


class Kit:
    """A folder with a good tiny model, manifest, audit and plan, from which each case breaks one thing."""

    def __init__(self, folder: Path, good: Path) -> None:
        self.folder = folder
        self.model, self.manifest = good / "model", good / "manifest.jsonl"
        self.audit, self.plan = good / "audit" / "audit.json", good / "plan.json"
        self.out = folder / "out"

    def write(self, name: str, content: str | bytes) -> str:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    def rows(self, *rows: dict[str, Any] | str) -> str:
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        return self.write("bad.jsonl", "\n".join(lines) + "\n")

    def row(self, **changes: Any) -> dict[str, Any]:
        good = json.loads(self.manifest.read_text().splitlines()[0])
        good["audio_filepath"] = str(self.manifest.parent / good["audio_filepath"])
        return {key: value for key, value in {**good, **changes}.items() if value is not None}

    def broken_model(self, change: Callable[[Path], None]) -> str:
        target = self.folder / "model"
        shutil.copytree(self.model, target)
        change(target)
        return str(target)

    def changed(self, source: Path, **changes: Any) -> str:
        return self.write("changed.json", json.dumps({**json.loads(source.read_text()), **changes}))

    def run_audit(self, data: str, *more: str) -> list[str]:
        return ["audit", str(self.model), "--data", data, "--out", str(self.out), *more]

    def run_prune(self, plan: str, *more: str) -> list[str]:
        return ["prune", str(self.model), "--plan", plan, "--out", str(self.out), *more]

    def run_select(self, *more: str) -> list[str]:
        return ["select", str(self.audit), "--out", str(self.out), *more]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    model, processor = tiny("whisper", "llama", "linear")
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    rows = []
    for number, seconds in enumerate([1.0, 1.5, 2.0]):
        samples = 0.1 * np.random.default_rng(number).standard_normal(int(16_000 * seconds))
        soundfile.write(folder / f"{number}.wav", samples, 16_000)
        rows.append({"audio_filepath": f"{number}.wav", "duration": seconds, "text": "hello you", "lang": "en"})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    audit = [
        "audit",
        str(folder / "model"),
        "--data",
        str(folder / "manifest.jsonl"),
        "--out",
        str(folder / "audit"),
    ]
    assert main([*audit, "--replicates", "20"]) == 0
    assert main(["select", str(folder / "audit/audit.json"), "--layers", "1", "--out", str(folder / "plan.json")]) == 0
    return folder


@pytest.fixture
def kit(good: Path, tmp_path: Path) -> Kit:
    return Kit(tmp_path, good)


def set_config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config["text_config"].update(changes)
        (folder / "config.json").write_text(json.dumps(config))

    return change


def drop_weight(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors.pop(next(name for name in tensors if "layers.1" in name))
    save_file(tensors, path, {"format": "pt"})


def wav(kit: Kit, samples: np.ndarray, rate: int = 16_000) -> str:
    path = kit.folder / "bad.wav"
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return kit.rows(kit.row(audio_filepath=str(path), duration=None))


CASES: dict[str, Make] = {
    # manifests
    "manifest: none": lambda k: k.run_audit(str(k.folder / "missing.jsonl")),
    "manifest: empty": lambda k: k.run_audit(k.write("empty.jsonl", "")),
    "manifest: not JSON": lambda k: k.run_audit(k.rows("{broken")),
    "manifest: a list": lambda k: k.run_audit(k.rows("[1, 2]")),
    "manifest: binary": lambda k: k.run_audit(k.write("bad.jsonl", bytes(range(256)))),
    "manifest: UTF-16": lambda k: k.run_audit(k.write("bad.jsonl", json.dumps(k.row()).encode("utf-16"))),
    "manifest: no audio_filepath": lambda k: k.run_audit(k.rows(k.row(audio_filepath=None))),
    "manifest: no text": lambda k: k.run_audit(k.rows(k.row(text=None))),
    "manifest: text is a number": lambda k: k.run_audit(k.rows(k.row(text=7))),
    "manifest: negative duration": lambda k: k.run_audit(k.rows(k.row(duration=-1))),
    "manifest: NaN duration": lambda k: k.run_audit(k.rows(k.row(duration=float("nan")))),
    "manifest: wrong duration": lambda k: k.run_audit(k.rows(k.row(duration=99.0))),
    "manifest: offset behind the end": lambda k: k.run_audit(k.rows(k.row(offset=50.0))),
    "manifest: same id twice": lambda k: k.run_audit(k.rows(k.row(id="a"), k.row(id="a"))),
    "manifest: given twice": lambda k: [*k.run_audit(str(k.manifest)), "--data", str(k.manifest)],
    # audio
    "audio: missing": lambda k: k.run_audit(k.rows(k.row(audio_filepath="gone.wav"))),
    "audio: a folder": lambda k: k.run_audit(k.rows(k.row(audio_filepath=str(k.folder)))),
    "audio: text inside": lambda k: k.run_audit(k.rows(k.row(audio_filepath=k.write("a.wav", "hello")))),
    "audio: empty file": lambda k: k.run_audit(k.rows(k.row(audio_filepath=k.write("a.wav", b"")))),
    "audio: no samples": lambda k: k.run_audit(wav(k, np.zeros(0))),
    "audio: NaN": lambda k: k.run_audit(wav(k, np.full(16_000, np.nan))),
    "audio: infinite": lambda k: k.run_audit(wav(k, np.full(16_000, np.inf))),
    "audio: absurdly long": lambda k: k.run_audit(wav(k, np.zeros(400_000), rate=1_000)),
    # models
    "model: none": lambda k: ["audit", str(k.folder / "gone"), "--data", str(k.manifest)],
    "model: unknown package": lambda k: ["audit", "pkg:smolm2", "--data", str(k.manifest)],
    "model: a file": lambda k: ["audit", k.write("model.bin", "x"), "--data", str(k.manifest)],
    "model: empty folder": lambda k: ["audit", str(k.folder), "--data", str(k.manifest)],
    "model: broken config": lambda k: [
        "audit",
        k.broken_model(lambda f: (f / "config.json").write_text("{")),
        "--data",
        str(k.manifest),
    ],
    "model: one layer too many in the config": lambda k: [
        "audit",
        k.broken_model(set_config(num_hidden_layers=5)),
        "--data",
        str(k.manifest),
    ],
    "model: a weight is missing": lambda k: ["audit", k.broken_model(drop_weight), "--data", str(k.manifest)],
    "model: cut off weights": lambda k: [
        "audit",
        k.broken_model(lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:5000])),
        "--data",
        str(k.manifest),
    ],
    "model: no weights": lambda k: [
        "audit",
        k.broken_model(lambda f: (f / "model.safetensors").unlink()),
        "--data",
        str(k.manifest),
    ],
    # audits and plans
    "audit file: none": lambda k: ["select", str(k.folder / "gone.json"), "--layers", "1"],
    "audit file: a plan": lambda k: ["select", str(k.plan), "--layers", "1"],
    "audit file: from the future": lambda k: [
        "select",
        k.changed(k.audit, schema_version=99),
        "--layers",
        "1",
    ],
    "audit file: a field is missing": lambda k: ["select", k.changed(k.audit, model={}), "--layers", "1"],
    "audit file: without its npz": lambda k: ["compare", k.changed(k.audit, sums_file="gone.npz")],
    "select: more layers than there are": lambda k: k.run_select("--layers", "40"),
    "select: no number": lambda k: k.run_select("--layers", "many"),
    "select: zero": lambda k: k.run_select("--layers", "0"),
    "select: 100 per cent": lambda k: k.run_select("--layers", "100%"),
    "select: unknown strategy": lambda k: k.run_select("--layers", "1", "--strategy", "magic"),
    "select: unknown scope": lambda k: k.run_select("--layers", "1", "--scope", "left"),
    "plan: not JSON": lambda k: k.run_prune(k.write("plan.json", "layers: 3")),
    "plan: an audit": lambda k: k.run_prune(str(k.audit)),
    "plan: a layer that is not there": lambda k: k.run_prune(k.changed(k.plan, layers=[17])),
    "plan: a layer twice": lambda k: k.run_prune(k.changed(k.plan, layers=[1, 1])),
    "plan: the last layer": lambda k: k.run_prune(k.changed(k.plan, layers=[3])),
    "plan: every layer": lambda k: k.run_prune(k.changed(k.plan, layers=[0, 1, 2, 3], allow_last=True)),
    "plan: another depth": lambda k: k.run_prune(k.changed(k.plan, depth=9)),
    "plan: words for layers": lambda k: k.run_prune(k.changed(k.plan, layers=["one"])),
    "prune: the folder is taken": lambda k: [
        "prune",
        str(k.model),
        "--plan",
        str(k.plan),
        "--out",
        str(Path(k.write("taken", "x")).parent),
    ],
    # flags
    "flag: unknown": lambda k: k.run_audit(str(k.manifest), "--fast"),
    "flag: unknown metric": lambda k: k.run_audit(str(k.manifest), "--metric", "perplexity"),
    "flag: no block sizes": lambda k: k.run_audit(str(k.manifest), "--metric", "ablation", "--block-sizes", "x"),
    "flag: block of all layers": lambda k: k.run_audit(
        str(k.manifest), "--metric", "ablation", "--block-sizes", "1,99"
    ),
    "flag: race without ablation": lambda k: k.run_audit(str(k.manifest), "--race"),
    "row: no translation": lambda k: k.run_audit(str(k.manifest), "--task", "ast"),
    "row: no emotion": lambda k: k.run_audit(str(k.manifest), "--task", "ser"),
    "flag: unknown task": lambda k: k.run_audit(str(k.manifest), "--task", "juggling"),
    "flag: unknown device": lambda k: k.run_audit(str(k.manifest), "--device", "abacus"),
    "flag: a device with a slip": lambda k: k.run_audit(str(k.manifest), "--device", "cuda0"),
    "flag: unknown dtype": lambda k: k.run_audit(str(k.manifest), "--dtype", "int3"),
    "flag: unknown input": lambda k: k.run_audit(str(k.manifest), "--input", "smell"),
    "flag: unknown cluster": lambda k: k.run_audit(str(k.manifest), "--cluster", "family"),
    "flag: where without =": lambda k: k.run_audit(str(k.manifest), "--where", "split"),
    "flag: where that matches nothing": lambda k: k.run_audit(str(k.manifest), "--where", "lang=xx"),
    "flag: negative limit": lambda k: k.run_audit(str(k.manifest), "--limit", "-3"),
    "flag: batch size 0": lambda k: k.run_audit(str(k.manifest), "--batch-size", "0"),
    "flag: no data": lambda k: ["audit", str(k.model)],
    "flag: no command": lambda _: ["dance"],
    "evaluate: a share that is none": lambda k: [
        "evaluate",
        str(k.model),
        "--data",
        str(k.manifest),
        "--max-wer-increase",
        "some",
    ],
    "evaluate: a requirement that is none": lambda k: [
        "evaluate",
        str(k.model),
        "--data",
        str(k.manifest),
        "--require",
        "good",
    ],
    "evaluate: no baseline for a drop": lambda k: [
        "evaluate",
        str(k.model),
        "--data",
        str(k.manifest),
        "--max-bleu-drop",
        "1",
    ],
    "evaluate: groups by a field that is not there": lambda k: [
        "evaluate",
        str(k.model),
        "--data",
        str(k.manifest),
        "--group-by",
        "txet",
        "--out",
        str(k.out),
    ],
    "evaluate: no model": lambda k: ["evaluate", "--data", str(k.manifest)],
    "evaluate: nothing to rescore": lambda k: ["evaluate", "--rescore", "--out", str(k.out)],
    "evaluate: a plan of another depth": lambda k: [
        *("evaluate", str(k.model), "--data", str(k.manifest), "--plan", k.changed(k.plan, depth=9)),
    ],
    "prune: layers that are not there": lambda k: [
        *("prune", str(k.model), "--layers-list", "9", "--out", str(k.out)),
    ],
    "evaluate: a plan that is none": lambda k: [
        "evaluate",
        str(k.model),
        "--data",
        str(k.manifest),
        "--plan",
        str(k.audit),
        "--out",
        str(k.out),
    ],
    "bench: no such plan": lambda k: [
        "bench",
        str(k.model),
        "--data",
        str(k.manifest),
        "--plan",
        "gone.json",
    ],
    "report: nothing to report": lambda k: ["report", k.write("x.json", "{}"), "--out", str(k.out)],
    "report: not a file": lambda k: ["report", str(k.folder / "gone.json"), "--out", str(k.out)],
    "compare: three audits": lambda k: ["compare", *[str(k.audit)] * 3],
    "weights: unknown name": lambda _: ["weights", "get", "llama-9000"],
    "demo: sizes that are none": lambda k: ["demo", "--layers", "a,b", "--out", str(k.out)],
}


@pytest.mark.parametrize("case", CASES)
def test_one_line_and_exit_code_2(
    case: str, kit: Kit, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(kit.folder)
    arguments = CASES[case](kit)
    before = set(kit.folder.rglob("*"))
    code = main(arguments)
    out, err = capsys.readouterr()
    assert code == 2, (out, err)
    assert out == ""
    lines = err.strip().splitlines()
    assert lines[-1].startswith("shoal: "), err
    assert "Traceback" not in err
    assert all(line.startswith(("shoal: ", "warning", "Warning")) or "skipped" in line for line in lines), err
    assert set(kit.folder.rglob("*")) - before <= {kit.out}, "something half-written was left"
    assert not kit.out.exists() or not any(kit.out.iterdir())


WITHOUT_TORCH = (
    "manifest: none",
    "model: none",
    "model: unknown package",
    "plan: an audit",
    "plan: another depth",
    "flag: block of all layers",
    "evaluate: a plan of another depth",
    "evaluate: nothing to rescore",
    "prune: layers that are not there",
    "prune: the folder is taken",
    "row: no translation",
    "flag: a device with a slip",
    "evaluate: a requirement that is none",
    "evaluate: a plan that is none",
    "evaluate: groups by a field that is not there",
    "compare: three audits",
)


def test_what_needs_no_model_is_refused_before_torch_is_imported(kit: Kit) -> None:
    lines = [CASES[case](kit) for case in WITHOUT_TORCH]
    code = (
        "import sys; from shoal.cli import main\n"
        f"for line in {lines!r}: assert main(line) == 2 and 'torch' not in sys.modules, line"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=kit.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_kit_itself_is_sound(good: Path) -> None:
    """If it were not, every case above would fail for the wrong reason."""
    audit, plan = Audit.load(good / "audit/audit.json"), Plan.load(good / "plan.json")
    assert audit.depth == plan.depth == 4
    assert torch.tensor(audit.inputs["speech"].scopes["all"].metrics["angular"].values[0]).isfinite().all()
