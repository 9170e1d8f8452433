"""What errors say of memory and disk, and how much of both there is."""

from __future__ import annotations

import errno
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch

from shoal import machine
from shoal.errors import FileFormatError, UsageError


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("no memory"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 18.1 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        MemoryError(),
        MemoryError("std::bad_alloc"),
    ],
)
def test_every_way_of_running_out_of_memory_is_told(error):
    assert machine.out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
        ValueError("out of memory is not what a ValueError means"),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
)
def test_other_errors_are_not_out_of_memory(error):
    assert not machine.out_of_memory(error)


def test_numpy_and_torch_say_so_when_it_happens():
    with pytest.raises(MemoryError) as numpys:
        np.empty(2**61, np.uint8)
    with pytest.raises(RuntimeError) as torchs:
        torch.empty(2**61, dtype=torch.uint8)
    assert machine.out_of_memory(numpys.value)
    assert machine.out_of_memory(torchs.value)


def test_free_memory_is_what_the_system_says(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1234))
    assert machine.free_memory() == machine.free_memory(torch.device("cpu")) == 1234


def test_free_memory_of_a_gpu_counts_what_torch_holds_for_nobody(monkeypatch):
    for name, value in (("mem_get_info", (100, 900)), ("memory_reserved", 50), ("memory_allocated", 20)):
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert machine.free_memory(torch.device("cuda:0")) == 130


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "out: the disk is full; free some space or go elsewhere",
        ),
        (
            OSError(errno.EDQUOT, "Disk quota exceeded"),
            "out: the disk is full; free some space or go elsewhere",
        ),
        (
            RuntimeError("I/O error: No space left on device (os error 28)"),
            "out: the disk is full; free some space",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied"),
            "out: cannot be written (Permission denied); go elsewh",
        ),
    ],
)
def test_a_refused_write_is_one_line(error, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileFormatError) as caught, machine.writing(tmp_path / "out", fix="go elsewhere"):
        raise error
    assert str(caught.value).removeprefix(f"{tmp_path}/").startswith(line)


@pytest.mark.parametrize("error", [ValueError("a bug"), UsageError("what a user did"), OSError("a plain one")])
def test_other_errors_pass_through(error, tmp_path):
    with pytest.raises(type(error)) as caught, machine.writing(tmp_path):
        raise error
    assert caught.value is error


def test_a_disk_is_looked_at_before_it_is_written(tmp_path, monkeypatch):
    machine.check_disk(tmp_path, 1)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: SimpleNamespace(free=2**30))
    with pytest.raises(FileFormatError, match=r"the disk is full: 3\.00 GiB are needed, 1\.00 GiB are free"):
        machine.check_disk(tmp_path, 3 * 2**30)
