"""Parameters sharded over processes (FSDP 2, by accelerate): what it must be told, and what cannot be."""

from __future__ import annotations

from typing import Any

import torch
from accelerate.utils.fsdp_utils import get_parameters_from_modules
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy

from shoal.errors import UsageError
from shoal.training.step import ModelWithLoss


def check_fsdp(plugin: Any, student: ModelWithLoss, *, sharded: bool) -> None:
    """Make sure that FSDP is set up for this model.

    Each decoder layer must be a group of its own: with one group for all there is nothing to gain, and FSDP refuses
    to train float32 beside 16 bits in a group.

    Args:
        plugin: accelerate's, of FSDP.
        student: what will be sharded.
        sharded: whether the caller can do with sharded parameters.

    Raises:
        UsageError: it is not.
    """
    where, names = "fsdp_config of accelerate", set(plugin.transformer_cls_names_to_wrap or ())
    layers = sorted({type(layer).__name__ for layer in student.loaded.layers})
    if not sharded:
        raise UsageError("this command cannot train sharded parameters (FSDP)", where=where, fix="take MULTI_GPU")
    if plugin.fsdp_version != 2:
        raise UsageError("FSDP 1 is not supported", where=where, fix="give fsdp_version: 2")
    if plugin.activation_checkpointing:
        raise UsageError("fsdp_activation_checkpointing is not supported", where=where, fix="set it to false")
    if not names.issuperset(layers):
        raise UsageError(
            "the decoder's layers must be wrapped one by one",
            where=where,
            fix="give fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP and "
            f"fsdp_transformer_layer_cls_to_wrap: {','.join(layers)}",
        )


def ready_to_shard(student: ModelWithLoss, plugin: Any, device: torch.device) -> None:
    """Tell accelerate's FSDP plugin what it must leave whole, and where to stay with float32.

    FSDP refuses scalars. Under mixed precision accelerate would add gradients up, and return the loss, in 16 bits.

    Args:
        student: what will be sharded.
        plugin: changed in place.
        device: of this process; scalars are put there.
    """
    scalars = [parameter for parameter in student.parameters() if parameter.dim() == 0]
    for scalar in scalars:
        scalar.data = scalar.data.to(device)
    ignored = get_parameters_from_modules(plugin.ignored_modules, student, device)
    plugin.ignored_modules = [nn.ParameterList([*scalars, *ignored])] if scalars or ignored else None
    if (policy := plugin.mixed_precision_policy) is not None:
        plugin.mixed_precision_policy = MixedPrecisionPolicy(policy.param_dtype, torch.float32)
