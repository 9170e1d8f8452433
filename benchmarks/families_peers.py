"""Which tools prune which audio LLM: Shoal, mergekit and optipfair on the same tiny random checkpoints.

    python benchmarks/families_peers.py [--only CLASS …] [--no-peers]

Layers 2 and 3 of 6 are removed from six audio LLM classes of transformers and from two text models as controls.
Every tool runs as its documentation says, and if that fails in the best other way that its code allows: mergekit
with its `modules:` syntax and the names that it infers itself, and then on a copy of the checkpoint that has the
keys it looks for; optipfair on the language model inside. What a tool writes is loaded with the stock class and
compared with a reference that is pruned by hand: no key missing, none left over, and the same float32 logits on
text. A folder that is not right is tried again with the right config.json put in by hand ("config corrected").
Peers run in environments of their own under `--cache`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import transformers

from support.family_models import REMOVED, Case, save_source, sources
from support.family_reference import reference
from support.family_tools import Importance, Outcome, Place, mergekit, optipfair, optipfair_importance, shoal

ROOT = Path(__file__).resolve().parents[1]
CONTROLS = ("LlamaForCausalLM", "Qwen2ForCausalLM")


def main() -> None:
    """Try everything, print the tables, end with the figures."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    options = parse()
    cases = [case for case in sources() if not options.only or case.class_name in options.only]
    results: dict[str, list[Outcome]] = {}
    importances: dict[str, list[Importance]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            print(f"trying {case.class_name}", file=sys.stderr)
            place = prepared(case, Path(folder) / case.class_name)
            results[case.class_name] = shoal(place)
            if options.peers:
                results[case.class_name] += mergekit(place, options.cache) + optipfair(place, options.cache)
                importances[case.class_name] = optipfair_importance(place, options.cache)
    print(f"transformers {transformers.__version__}; layers {REMOVED[0]} to {REMOVED[-1]} of 6 removed\n")
    print_outcomes(results)
    print_importances(importances)
    print(json.dumps(figures(results, importances)))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--only", nargs="*", metavar="CLASS", help="these classes only")
    add("--peers", action=argparse.BooleanOptionalAction, default=True)
    add("--cache", type=Path, default=ROOT / ".cache" / "benchmarks", help="for the peers' environments")
    return parser.parse_args()


def prepared(case: Case, folder: Path) -> Place:
    """The checkpoint on disk and its reference in memory."""
    source, work = folder / "source", folder / "work"
    source.mkdir(parents=True)
    work.mkdir()
    save_source(case, source)
    return Place(case, source, work, reference(case, source))


def print_outcomes(results: dict[str, list[Outcome]]) -> None:
    """One row an attempt."""
    print("| class | tool | way | exit | last line of its error | what it left | … config corrected |")
    print("|---|---|---|---|---|---|---|")
    for name, outcomes in results.items():
        for outcome in outcomes:
            error = f"`{outcome.error}`" if outcome.error else ""
            repaired = verdict(outcome.repaired) if outcome.repaired else ""
            row = (
                name,
                outcome.tool,
                outcome.attempt,
                outcome.exit_code,
                error,
                verdict(outcome.found),
                repaired,
            )
            print("| " + " | ".join(map(str, row)) + " |")


def verdict(found: object) -> str:
    """A check in words, the good ones in bold."""
    return f"**equal** ({found})" if getattr(found, "equal", False) else str(found)


def print_importances(importances: dict[str, list[Importance]]) -> None:
    """What `analyze_layer_importance` finds."""
    if not importances:
        return
    print("\n| class | way | layers found | largest difference | last line of its error |\n|---|---|---|---|---|")
    for name, attempts in importances.items():
        for found in attempts:
            difference = "" if found.difference is None else f"{found.difference:.1e}"
            error = f"`{found.error}`" if found.error else ""
            print(f"| {name} | {found.attempt} | {found.layers} | {difference} | {error} |")


def figures(results: dict[str, list[Outcome]], importances: dict[str, list[Importance]]) -> dict[str, int | float]:
    """How many audio classes each tool prunes rightly: at once, in any way, and with the config corrected."""
    audio = {name: outcomes for name, outcomes in results.items() if name not in CONTROLS}
    counts: dict[str, int | float] = {"audio_classes": len(audio)}
    for tool in ("shoal", "mergekit", "optipfair"):
        own = [[outcome for outcome in outcomes if outcome.tool == tool] for outcomes in audio.values()]
        own = [tried for tried in own if tried]
        if not own:
            continue
        counts[f"{tool}_as_documented"] = sum(tried[0].found.equal for tried in own)
        counts[f"{tool}_in_any_way"] = sum(any(o.found.equal for o in tried) for tried in own)
        counts[f"{tool}_config_corrected"] = sum(any(o.right_weights for o in tried) for tried in own)
        counts[f"{tool}_exit_0_but_wrong"] = sum(
            any(not o.exit_code and not o.found.equal for o in tried) for tried in own
        )
    if importances:
        heard = [found for name, found in importances.items() if name not in CONTROLS]
        counts["optipfair_importance_as_documented"] = sum(tried[0].right for tried in heard)
        counts["optipfair_importance_in_any_way"] = sum(tried[-1].right for tried in heard)
    return counts


if __name__ == "__main__":
    main()
