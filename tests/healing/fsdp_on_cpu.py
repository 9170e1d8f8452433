"""What `accelerate launch` starts in place of `-m shoal`, so that a test on the CPU sees how the model is trained.

accelerate takes FSDP for several kinds of accelerators and silently not for the CPU: its state becomes FSDP only where
the processes were MULTI_GPU or the like before, and on the CPU they are MULTI_CPU (`AcceleratorState.__init__`).
`torch.distributed.fsdp.fully_shard` itself runs on the CPU, with gloo. So where the launcher asks for FSDP, the
processes are called MULTI_GPU for as long as it takes accelerate to decide. All that comes after is what runs on GPUs,
but for the device. Without FSDP nothing is changed: the processes are DDP's.

Every step prints a line to stderr: the class of the model, the processes, the classes of its parameters.
Where SHOAL_TEST_STOP_AT is a number of steps, the command runs twice: each process makes another, which ends after that
many steps as if it had been killed, and then runs the command itself. So everything is imported once for both. What is
healed is verified in the process that wrote it.

`launch_forked` does what `accelerate launch` does in a process in which all is imported, and forks the processes that
torchrun would start.
"""

import argparse
import os
import sys
import traceback
from pathlib import Path

ENDED = "ended as if it had been killed"


def patch_accelerate() -> None:
    """Let accelerate take FSDP on the CPU."""
    from accelerate import state
    from accelerate.utils import DistributedType

    state.PartialState(cpu=True)
    decide = state.AcceleratorState.__init__

    def init(self, *args, **kwargs):
        state.PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        decide(self, *args, **kwargs)

    state.AcceleratorState.__init__ = init


def patch_trainer(stop: int) -> None:
    """Say how each step is trained, and end where that is asked for."""
    from shoal.training import loop

    step = loop._Trainer.training_step

    def watched(self, model, inputs, num_items_in_batch=None):
        if inputs["step"] == stop:
            os._exit(9)
        found = step(self, model, inputs, num_items_in_batch)
        # FSDP leaves scalars whole, so they are not looked at.
        kinds = ",".join(sorted({type(each).__name__ for each in self.student.parameters() if each.dim()}))
        line = f"step {inputs['step']}: {type(model).__name__} x{self.args.world_size} {kinds}"
        # One write with its newline: two processes share stderr, and print writes the newline apart.
        sys.stderr.write(f"{line}, {inputs['idle']} idle\n")
        return found

    loop._Trainer.training_step = watched


def end_on_the_way(arguments: list[str], stop: int) -> None:
    """Run the command in another process until it has ended behind `stop` steps, having written nothing."""
    process = os.fork()
    if process == 0:
        # The launcher keeps a store for one run alone.
        os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"
        os.environ["MASTER_PORT"] = str(int(os.environ["MASTER_PORT"]) + 1)
        sys.exit(run(arguments, stop))
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) != 0
    assert not Path(arguments[arguments.index("--out") + 1]).exists()
    print(ENDED, file=sys.stderr)


def run(arguments: list[str], stop: int = -1) -> int:
    from forked_commands import command

    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        patch_accelerate()
    patch_trainer(stop)
    return command(arguments)


def main(arguments: list[str]) -> int:
    from forked_processes import import_for_commands

    os.environ["ACCELERATE_USE_CPU"] = "true"
    import_for_commands()
    if "SHOAL_TEST_STOP_AT" in os.environ:
        end_on_the_way(arguments, int(os.environ["SHOAL_TEST_STOP_AT"]))
    return run(arguments)


def launch_forked(options: list[str], printed: Path) -> None:
    """`accelerate launch`, all of it but torchrun; what is printed to stdout goes into `printed`."""
    from accelerate.commands import launch
    from torch.distributed import run as torchrun

    torchrun.run = fork_ranks
    os.dup2(os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), 1)
    launch.launch_command(launch.launch_command_parser().parse_args(options))


def fork_ranks(args: argparse.Namespace) -> None:
    """In place of `torch.distributed.run.run`: it returns when all have ended well."""
    count = int(args.nproc_per_node)
    shared = {
        "WORLD_SIZE": count,
        "LOCAL_WORLD_SIZE": count,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": args.master_port,
    }
    processes = [
        fork_rank(args.training_script_args, shared | {"RANK": rank, "LOCAL_RANK": rank}) for rank in range(count)
    ]
    codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]
    if any(codes):
        sys.exit(f"the processes ended with {codes}")


def fork_rank(arguments: list[str], environment: dict[str, object]) -> int:
    process = os.fork()
    if process:
        return process
    os.environ.update({name: str(value) for name, value in environment.items()})
    code = 1
    try:
        code = main(arguments)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
