"""The tools on one checkpoint, each as its documentation says, and in the best other way that its code allows."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from support.environments import Environment
from support.family_models import DEPTH, REMOVED, Case, save_with_names_in_memory
from support.family_reference import TOLERANCE, Check, Reference, check, check_repaired, last_line, load

WORKER = Path(__file__).with_name("family_worker.py")
NEWEST = ("transformers==5.23.0",)
MERGEKIT = Environment("mergekit", (*NEWEST, "mergekit==0.1.5"))
OPTIPFAIR = Environment("optipfair", (*NEWEST, "optipfair==0.4.2"))
INFERRED = re.compile(r"'([\w.]+)' with (\d+) layers")
"""How mergekit names the modules that it infers, in its log."""


@dataclass(frozen=True)
class Outcome:
    """One attempt. `error` is what the tool said last if it failed; `repaired` is `found` with a right config."""

    tool: str
    attempt: str
    exit_code: int
    error: str
    found: Check
    repaired: Check | None = None

    @property
    def right_weights(self) -> bool:
        """Whether nothing was wrong, or only the config."""
        return self.found.equal or (self.repaired is not None and self.repaired.equal)


@dataclass(frozen=True)
class Importance:
    """optipfair's importance of layers against the reference; `difference` is None unless it found all layers."""

    attempt: str
    error: str
    layers: int = 0
    difference: float | None = None

    @property
    def right(self) -> bool:
        """Whether it measured the decoder's layers, and all of them."""
        return self.difference is not None and self.difference <= TOLERANCE


@dataclass(frozen=True)
class Place:
    """Where a checkpoint lies, what comes out and what should."""

    case: Case
    source: Path
    work: Path
    expected: Reference

    def outcome(self, tool: str, attempt: str, run: Callable[[Path], tuple[int, str]]) -> Outcome:
        """Let `run` write a folder and look at it."""
        out = self.work / f"{tool}-{attempt}".replace(" ", "-")
        shutil.rmtree(out, ignore_errors=True)
        code, error = run(out)
        found = check(self.case, out, self.expected)
        repaired = None
        if found.weights and not found.equal:
            repaired = check_repaired(self.case, out, self.expected)
        return Outcome(tool, attempt, code, error, found, repaired)


def mergekit(place: Place, cache: Path) -> list[Outcome]:
    """Passthrough of two slices; then, until one is right, what its messages and its code ask for.

    It wants its `modules:` syntax for models with several parts; its log has the names it gives them. It finds
    weights by the names that they have in memory, which are other than those on disk for most of these classes:
    the last try gives it a checkpoint that has the names in memory.
    """
    program = MERGEKIT.python(cache).with_name("mergekit-yaml")

    def run(out: Path, config: dict[str, Any]) -> tuple[int, str]:
        recipe = out.with_suffix(".yml")
        recipe.write_text(yaml.safe_dump({"merge_method": "passthrough", "dtype": "float32", **config}))
        done = _run([str(program), str(recipe), str(out), "--copy-tokenizer", "--lazy-unpickle"])
        out.with_suffix(".log").write_text(done.stderr)
        return done.returncode, _complaint(done)

    def attempt(way: str, config: dict[str, Any]) -> Outcome:
        return place.outcome("mergekit", way, lambda out: run(out, config))

    outcomes = [attempt("slices", {"slices": _slices(place.source)})]
    said = (place.work / "mergekit-slices.log").read_text()
    names = list(dict.fromkeys(name for name, _ in INFERRED.findall(said)))
    if outcomes[0].exit_code and place.case.layers in names:
        outcomes.append(attempt("modules", {"modules": _modules(place, place.source, names)}))
        if not outcomes[-1].right_weights:
            renamed = place.work / "renamed"
            save_with_names_in_memory(place.case, place.source, renamed)
            outcomes.append(attempt("modules, keys renamed", {"modules": _modules(place, renamed, names)}))
    return outcomes


def optipfair(place: Place, cache: Path) -> list[Outcome]:
    """The whole model; if that fails, the language model inside it."""
    python = OPTIPFAIR.python(cache)

    def run(out: Path, what: str) -> tuple[int, str]:
        done = _run([str(python), str(WORKER), what, place.case.class_name, str(place.source), str(out)])
        return done.returncode, _complaint(done)

    outcomes = [place.outcome("optipfair", "whole model", lambda out: run(out, "whole"))]
    if not outcomes[0].found.equal:
        outcomes.append(place.outcome("optipfair", "inner model", lambda out: run(out, "inner")))
    return outcomes


def optipfair_importance(place: Place, cache: Path) -> list[Importance]:
    """`analyze_layer_importance` on text; if it does not find the layers, with their path."""
    python, ids = OPTIPFAIR.python(cache), place.work / "ids.json"
    ids.write_text(json.dumps(place.expected.ids.tolist()))

    def run(attempt: str, what: str) -> Importance:
        names = [what, place.case.class_name, str(place.source), str(ids), place.case.layers]
        done = _run([str(python), str(WORKER), *names])
        if done.returncode:
            return Importance(attempt, _complaint(done))
        scores, right = json.loads(last_line(done.stdout)), place.expected.influence
        same = len(scores) == len(right)
        difference = max(abs(a - b) for a, b in zip(scores, right, strict=True)) if same else None
        return Importance(attempt, "", len(scores), difference)

    first = run("as documented", "importance")
    return [first] if first.right else [first, run("with layers_path", "importance-at")]


def shoal(place: Place) -> list[Outcome]:
    """`write_checkpoint`, which verifies in a fresh process before it gives the folder its name."""
    return [place.outcome("shoal", "write_checkpoint", lambda out: _shoal(place, out))]


def _shoal(place: Place, out: Path) -> tuple[int, str]:
    from shoal.errors import ShoalError
    from shoal.pruning.on_disk import write_checkpoint
    from shoal.schema import Plan, Provenance

    plan = Plan(provenance=Provenance(shoal="0"), model_ref=str(place.source), depth=DEPTH, layers=list(REMOVED))
    cases = {"text": {"input_ids": place.expected.ids}}
    try:
        write_checkpoint(load(place.case, place.source), plan, out, cases=cases, source=place.source)
    except ShoalError as error:
        return error.exit_code, f"{type(error).__name__}: {error}"
    except Exception as error:
        return 1, f"{type(error).__name__}: {last_line(str(error))}"
    return 0, ""


def _modules(place: Place, source: Path, names: list[str]) -> dict[str, Any]:
    """The decoder in slices, all other parts whole."""
    whole = {"models": [{"model": str(source)}]}
    return {name: {"slices": _slices(source)} if name == place.case.layers else whole for name in names}


def _slices(source: Path) -> list[dict[str, Any]]:
    ranges = ([0, REMOVED[0]], [REMOVED[-1] + 1, DEPTH])
    return [{"sources": [{"model": str(source), "layer_range": part}]} for part in ranges]


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def _complaint(done: subprocess.CompletedProcess[str]) -> str:
    return last_line(done.stderr) if done.returncode else ""
