"""Compression of adapters: bounded error, small, and the format of the reference adapters."""

from __future__ import annotations

import torch

from shoal.models.row_int8 import compress, expand


def test_the_error_is_at_most_about_half_a_step():
    weight = torch.randn(7, 300) * torch.logspace(-3, 1, 7)[:, None]
    stored = compress({"w": weight})
    error = (expand(stored)["w"] - weight).abs()
    assert (error <= stored["w_scale"].float()[:, None] * 0.57).all()


def test_matrices_become_int8_with_a_scale_per_row_and_the_rest_float16():
    stored = compress({"w": torch.randn(3, 4), "b": torch.randn(3), "g": torch.tensor(1.5)})
    kinds = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in stored.items()}
    assert kinds == {
        "w": (torch.int8, (3, 4)),
        "w_scale": (torch.float16, (3,)),
        "b": (torch.float16, (3,)),
        "g": (torch.float16, ()),
    }


def test_what_was_not_compressed_is_read_as_it_is():
    tensors = {"w": torch.randn(3, 4), "temperature_scale": torch.randn(2)}
    given = expand(tensors)
    assert given.keys() == tensors.keys()
    assert all(torch.equal(given[name], tensors[name]) for name in tensors)


def test_rows_of_zeros_stay_zeros():
    weight = torch.zeros(2, 3)
    weight[1] = 1e-9  # its scale vanishes in float16
    assert torch.equal(expand(compress({"w": weight}))["w"], torch.zeros(2, 3))


def test_compressing_twice_changes_nothing():
    once = expand(compress({"w": torch.randn(5, 40)}))
    torch.testing.assert_close(expand(compress(once))["w"], once["w"], atol=0, rtol=1e-3)
