"""The raw format: what the safetensors library reads back is what a slow slice of the arrays gives."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from checkpoint_tensors import digests_of
from full_run import examples
from shoal.pruning import safetensors_file
from shoal.pruning.safetensors_file import (
    NewFile,
    Piece,
    TensorSlice,
    cut_problem,
    read_header,
    write_file,
)

shapes = st.lists(st.integers(1, 4), min_size=1, max_size=3)


@settings(max_examples=examples(60), deadline=None)
@given(shape=shapes, dim=st.integers(0, 2), parts=st.integers(1, 5), chunk=st.integers(1, 300), data=st.data())
def test_cut_tensors_are_slices(tmp_path_factory, shape, dim, parts, chunk, data):
    """Whatever the chunk: rows that fit in one, and rows that do not."""
    dim = min(dim, len(shape) - 1)
    keep = sorted(data.draw(st.sets(st.integers(0, parts - 1), min_size=1)))
    shape[dim] *= parts
    array = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    folder = tmp_path_factory.mktemp("cut")
    save_file({"a": array, "b": np.ones(3, np.float16)}, folder / "old", metadata={"format": "pt"})
    header = read_header(folder / "old")
    cuts = {"a": TensorSlice(dim, parts, tuple(keep))}
    pieces = [Piece(f"new.{name}", entry, cuts.get(name)) for name, entry in header.tensors.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(safetensors_file, "CHUNK", chunk)
        digests = write_file(NewFile("new", header, pieces), folder / "new")
    found = load_file(folder / "new")
    wanted = np.concatenate([np.split(array, parts, dim)[part] for part in keep], axis=dim)
    np.testing.assert_array_equal(found["new.a"], wanted)
    np.testing.assert_array_equal(found["new.b"], np.ones(3, np.float16))
    assert digests["new.a"] == hashlib.sha256(wanted.tobytes()).hexdigest()
    assert digests == digests_of(folder / "new")
    again = read_header(folder / "new")
    assert again.metadata == {"format": "pt"}
    assert next(iter(again.tensors.values())).start % 8 == 0


def test_packed_and_unknown_dtypes_are_copied_and_only_cut_between_bytes(tmp_path):
    tensors = {
        "w": {"dtype": "F4", "shape": [4, 3], "data_offsets": [0, 6]},
        "x": {"dtype": "I2", "shape": [8], "data_offsets": [6, 8]},
    }
    text = json.dumps(tensors).encode()
    old = tmp_path / "old"
    old.write_bytes(len(text).to_bytes(8, "little") + text + bytes(range(8)))
    header = read_header(old)
    pieces = [Piece(name, entry) for name, entry in header.tensors.items()]
    write_file(NewFile("new", header, pieces), tmp_path / "new")
    assert (tmp_path / "new").read_bytes()[-8:] == bytes(range(8))
    assert "between bytes" in (cut_problem(header.tensors["w"], TensorSlice(0, 4, (0,))) or "")
    assert cut_problem(header.tensors["w"], TensorSlice(0, 2, (0,))) is None
    assert "between bytes" in (cut_problem(header.tensors["x"], TensorSlice(0, 2, (0,))) or "")
    assert "equal parts" in (cut_problem(header.tensors["w"], TensorSlice(1, 2, (0,))) or "")
