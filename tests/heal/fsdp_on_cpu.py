"""What `accelerate launch` starts in place of `-m shoal`, so that a test on the CPU sees how the model is trained.

accelerate takes FSDP for several kinds of accelerators and silently not for the CPU: its state becomes FSDP only where
the processes were MULTI_GPU or the like before, and on the CPU they are MULTI_CPU (`AcceleratorState.__init__`).
`torch.distributed.fsdp.fully_shard` itself runs on the CPU, with gloo. So where the launcher asks for FSDP, the
processes are called MULTI_GPU for as long as it takes accelerate to decide. All that comes after is what runs on GPUs,
but for the device. Without FSDP nothing is changed: the processes are DDP's.

Every step prints a line to stderr: the class of the model, the processes, the classes of its parameters.
SHOAL_TEST_STOP_AT is the number of steps after which all processes end, as if they had been killed.
"""

import os
import sys


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


def patch_trainer() -> None:
    """Say how each step is trained, and end where that is asked for."""
    from shoal.training import loop

    step, stop = loop._Trainer.training_step, int(os.environ.get("SHOAL_TEST_STOP_AT", "-1"))

    def watched(self, model, inputs, num_items_in_batch=None):
        if inputs["step"] == stop:
            os._exit(9)
        found = step(self, model, inputs, num_items_in_batch)
        # FSDP leaves scalars whole, so they are not looked at.
        kinds = ",".join(sorted({type(each).__name__ for each in self.student.parameters() if each.dim()}))
        line = f"step {inputs['step']}: {type(model).__name__} x{self.args.world_size} {kinds}"
        print(f"{line}, {inputs['idle']} idle", file=sys.stderr)
        return found

    loop._Trainer.training_step = watched


if __name__ == "__main__":
    os.environ["ACCELERATE_USE_CPU"] = "true"
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        patch_accelerate()
    patch_trainer()
    from shoal.cli import main

    sys.exit(main(sys.argv[1:]))
