"""A heal run that is killed, at any moment, goes on; and one that is spread over processes is the same run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import shoal
import tiny_speech
from shoal.heal.run import _described  # noqa: F401 - imported here, so that a rename shows at once
from shoal.prune import prune
from shoal.schema import HealRecord, Plan

KILLS = int(os.environ.get("SHOAL_KILLS", "3"))
"""`SHOAL_KILLS=20` is what the lab book has."""
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("interrupted")
    loaded = tiny_speech.loaded()
    loaded.path = place / "nowhere"
    loaded.path.mkdir()
    plan = Plan.model_validate(tiny_speech.plan(1, 2).model_dump() | {"allow_last": False})
    prune(loaded, plan, place / "pruned")
    tiny_speech.write_clips(place / "clips", 12)
    return place


def command(folder: Path, out: Path, *more: str) -> list[str]:
    return [
        "heal", str(folder / "pruned"), "--data", str(folder / "clips" / "manifest.jsonl"), "--target", "joint",
        "--steps", "40", "--clips", "4", "--rank", "2", "--dropout", "0.2", "--save-every", "3",
        "--features", str(folder / "features"), "--out", str(out), "--json", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(folder):
    out = folder / "undisturbed"
    done = subprocess.run(
        [sys.executable, "-m", "shoal", *command(folder, out)],
        env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return HealRecord.load(out / "shoal-heal.json")


def test_a_run_that_is_killed_goes_on_to_the_same_model(folder, undisturbed):
    """SIGKILL at random moments of the whole command, loading and writing included."""
    out = folder / "killed"
    random = np.random.default_rng(0)
    longest, kills = 20.0, 0
    while kills < KILLS:
        process = subprocess.Popen(
            [sys.executable, "-m", "shoal", *command(folder, out)],
            env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        begun = time.monotonic()
        try:
            process.wait(timeout=float(random.uniform(5, longest)))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            continue
        # It came to its end before it was killed: begin anew, and kill earlier.
        assert process.returncode == 0, process.stderr.read()
        longest = max(6.0, 0.8 * (time.monotonic() - begun))
        check(out, undisturbed)
        remove(out)
    done = subprocess.run(
        [sys.executable, "-m", "shoal", *command(folder, out)],
        env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    check(out, undisturbed)
    left = {path.name for path in folder.iterdir()}
    assert not [name for name in left if name.startswith(".killed.healing")]


def check(out: Path, undisturbed: HealRecord) -> None:
    record = HealRecord.load(out / "shoal-heal.json")
    assert record.last_loss == undisturbed.last_loss
    assert record.loss_after == undisturbed.loss_after
    assert record.steps == undisturbed.steps


def remove(out: Path) -> None:
    import shutil

    shutil.rmtree(out)


@pytest.mark.parametrize("sharded", [False, True], ids=["ddp", "fsdp2"])
def test_two_processes_train_as_one(folder, undisturbed, tmp_path, sharded):
    """`accelerate launch` with two processes on the CPU (gloo): the same losses, up to rounding and dropout."""
    out = tmp_path / "launched"
    plain = tmp_path / "plain"
    without = ("--dropout", "0", "--save-every", "20")
    config = tmp_path / "accelerate.yaml"
    config.write_text(launch_config(sharded=sharded))
    port = str(20_000 + os.getpid() % 20_000 + sharded)
    launched = subprocess.run(
        [
            sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config),
            "--main_process_port", port, "-m", "shoal", *command(folder, out, *without),
        ],
        env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert launched.returncode == 0, launched.stderr[-3000:]
    alone = subprocess.run(
        [sys.executable, "-m", "shoal", *command(folder, plain, *without)],
        env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr
    ours, theirs = (HealRecord.load(each / "shoal-heal.json") for each in (out, plain))
    assert ours.last_loss == pytest.approx(theirs.last_loss, rel=1e-4)
    assert ours.loss_after == pytest.approx(theirs.loss_after, rel=1e-4)
    # The first process alone prints, once, and what was written is whole.
    assert json.loads(launched.stdout)["steps"] == 40
    assert len(shoal.load(str(out)).layers) == 2


def launch_config(*, sharded: bool) -> str:
    lines = [
        "compute_environment: LOCAL_MACHINE",
        f"distributed_type: {'FSDP' if sharded else 'MULTI_CPU'}",
        "use_cpu: true",
        "num_machines: 1",
        "num_processes: 2",
        "machine_rank: 0",
        "mixed_precision: 'no'",
    ]
    if sharded:
        lines += [
            "fsdp_config:",
            "  fsdp_version: 2",
            "  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP",
            "  fsdp_transformer_layer_cls_to_wrap: LlamaDecoderLayer",
            "  fsdp_state_dict_type: FULL_STATE_DICT",
            "  fsdp_reshard_after_forward: true",
        ]
    return "\n".join(lines) + "\n"
