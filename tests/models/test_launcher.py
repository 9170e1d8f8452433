from __future__ import annotations

import torch

from shoal.models.loading import find_device


def test_under_a_launcher_every_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert find_device("cuda") == torch.device("cuda")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert find_device("cuda") == find_device("auto") == torch.device("cuda:3")
    assert [str(find_device(name)) for name in ("cpu", "cuda:1")] == ["cpu", "cuda:1"]
