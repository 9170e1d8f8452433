"""A heal run that is killed, at any moment, goes on; and one that is spread over processes is the same run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from forked_commands import ENVIRONMENT, ForkedCommands, FreshCommands
from fsdp_on_cpu import ENDED, launch_forked
from safetensors.torch import load_file

import shoal
import tiny_speech
from full_run import FULL
from shoal.errors import UsageError
from shoal.pruning.on_disk import prune
from shoal.schema import HealRecord, Plan
from shoal.training.fsdp import check_fsdp

KILLS = int(os.environ.get("SHOAL_KILLS", "3" if FULL else "1"))
"""`SHOAL_KILLS=20` is what the lab book has."""
FRESH = "SHOAL_KILLS" in os.environ or "SHOAL_FRESH" in os.environ
"""Whether all that is killed begins with its imports and verifies in a process of its own, as a user's command does."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("interrupted")
    loaded = tiny_speech.loaded()
    loaded.path = place / "nowhere"
    loaded.path.mkdir()
    plan = Plan.model_validate(tiny_speech.plan(1, 2).model_dump() | {"allow_last": False})
    prune(loaded, plan, place / "pruned", verify=False)
    tiny_speech.write_clips(place / "clips", 12)
    return place


@pytest.fixture(scope="module")
def commands(tmp_path_factory, processes):
    folder = tmp_path_factory.mktemp("commands")
    return FreshCommands(folder) if FRESH else ForkedCommands(folder, processes)


def command(folder: Path, out: Path, *more: str) -> list[str]:
    return [
        "heal", str(folder / "pruned"), "--data", str(folder / "clips" / "manifest.jsonl"), "--target", "joint",
        "--steps", "40", "--clips", "4", "--rank", "2", "--dropout", "0.2", "--save-every", "3",
        "--features", str(folder / "features"), "--out", str(out), "--json", *more,
    ]  # fmt: skip


def healed(commands, folder: Path, out: Path, *more: str) -> HealRecord:
    assert commands.run(command(folder, out, *more)) == 0, commands.output()
    return HealRecord.load(out / "shoal-heal.json")


def test_a_run_that_is_killed_goes_on_to_the_same_model(folder, commands, tmp_path):
    """SIGKILL at random moments of the whole command, loading and writing included.

    In a full run the last one is a user's own command, in a new interpreter.
    """
    begun = time.monotonic()
    undisturbed = healed(commands, folder, folder / "undisturbed")
    longest = time.monotonic() - begun
    out, random, kills = folder / "killed", np.random.default_rng(0), 0
    while kills < KILLS:
        begun = time.monotonic()
        code = commands.run(command(folder, out), within=float(random.uniform(0.1, 1) * longest))
        if code is None:
            kills += 1
            continue
        # It came to its end before it was killed: begin anew, and kill earlier.
        assert code == 0, commands.output()
        longest = 0.8 * (time.monotonic() - begun)
        check(out, undisturbed)
        shutil.rmtree(out)
    healed(FreshCommands(tmp_path) if FULL else commands, folder, out)
    check(out, undisturbed)
    left = {path.name for path in folder.iterdir()}
    assert not [name for name in left if name.startswith(".killed.healing")]


def check(out: Path, undisturbed: HealRecord) -> None:
    record = HealRecord.load(out / "shoal-heal.json")
    assert record.last_loss == undisturbed.last_loss
    assert record.loss_after == undisturbed.loss_after
    assert record.steps == undisturbed.steps
    ours, theirs = (load_file(each / "model.safetensors") for each in (out, out.with_name("undisturbed")))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


HERE = Path(__file__).parent
FSDP = HERE.parents[1] / "recipes" / "accelerate" / "fsdp2.yaml"
# On a CPU, `distributed_type: MULTI_CPU` starts a single process, and `--multi_gpu` as many as it is told.
LAUNCHER = {
    "ddp": (["--multi_gpu", "--num_machines", "1"], "DistributedDataParallel x2 Parameter"),
    "fsdp2": (["--config_file", str(FSDP)], "FSDPModelWithLoss x2 DTensor"),
}
"""Options of `accelerate launch`, and what the training then is."""


UNEVEN = ("--steps", "20", "--clips", "5", "--dropout", "0", "--max-positions", "10", "--save-every", "5")
"""Every clip is a part by itself: three of one process, two of the other."""


def launch(processes, way: str, folder: Path, *arguments: str) -> tuple[int, str, str]:
    """The exit code of two processes on the CPU, and what they print; see `fsdp_on_cpu`.

    Killed on the way: behind step 13 all end, and the command goes on. In a full run torchrun starts them.
    """
    port = str(20_000 + os.getpid() % 20_000 + 2 * list(LAUNCHER).index(way))
    environment = ENVIRONMENT | {"SHOAL_TEST_STOP_AT": "13"}
    options = [
        *LAUNCHER[way][0], "--num_processes", "2", "--mixed_precision", "no", "--dynamo_backend", "no",
        "--main_process_port", port, str(HERE / "fsdp_on_cpu.py"), *arguments,
    ]  # fmt: skip
    if not FULL and processes is not None:
        printed, errors = folder / "printed.txt", folder / "errors.txt"
        code = processes.run(partial(launch_forked, options, printed), errors, environment)
        return code, printed.read_text(), errors.read_text()
    command = [sys.executable, "-m", "accelerate.commands.launch", *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=280)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def alone(folder, commands):
    """One process, for what is launched with the same options."""
    return healed(commands, folder, folder / "alone", *UNEVEN)


@pytest.mark.parametrize("way", [pytest.param("ddp", marks=pytest.mark.full), "fsdp2"])
def test_two_processes_train_as_one(folder, alone, processes, tmp_path, way):
    """`accelerate launch` with two processes on the CPU (gloo): the same losses, up to rounding.

    Killed on the way, too: the command goes on from the checkpoint of step 10.
    """
    out = tmp_path / "launched"
    code, printed, errors = launch(processes, way, tmp_path, *command(folder, out, *UNEVEN))
    assert code == 0, errors[-3000:]
    killed, _, went_on = errors.rpartition(ENDED)
    assert killed.count(ENDED) == 1
    assert f"step 12: {LAUNCHER[way][1]}, {int(way == 'fsdp2')} idle\n" in killed, killed[-3000:]
    assert "step 13:" not in killed
    assert f"step 10: {LAUNCHER[way][1]}" in went_on
    assert "step 9:" not in went_on
    ours = HealRecord.load(out / "shoal-heal.json")
    assert (ours.steps, ours.clips, ours.trained_parameters) == (20, 100, alone.trained_parameters)
    assert ours.last_loss == pytest.approx(alone.last_loss, rel=1e-4)
    assert ours.loss_after == pytest.approx(alone.loss_after, rel=1e-4)
    # The first process alone prints, once, and what was written is whole.
    assert json.loads(printed)["steps"] == 20
    assert len(shoal.load(str(out)).layers) == 2
    assert not (tmp_path / ".launched.healing").exists()


@pytest.mark.parametrize(
    ("config", "sharded", "words"),
    [
        ({"transformer_cls_names_to_wrap": ["GPT2Block"]}, True, "layer_cls_to_wrap: LlamaDecoderLayer"),
        ({"transformer_cls_names_to_wrap": None}, True, "layer_cls_to_wrap: LlamaDecoderLayer"),
        ({"fsdp_version": 1}, True, "fsdp_version: 2"),
        ({"activation_checkpointing": True}, True, "fsdp_activation_checkpointing"),
        ({}, False, "this command cannot train sharded parameters"),
    ],
)
def test_fsdp_that_is_set_up_otherwise_is_one_line(config, sharded, words):
    """What belongs into accelerate's config is said."""
    right = {
        "fsdp_version": 2,
        "activation_checkpointing": False,
        "transformer_cls_names_to_wrap": ["LlamaDecoderLayer"],
    }
    student = SimpleNamespace(loaded=tiny_speech.loaded())
    check_fsdp(SimpleNamespace(**right), student, sharded=True)
    with pytest.raises(UsageError, match=words):
        check_fsdp(SimpleNamespace(**right | config), student, sharded=sharded)
