from __future__ import annotations

from shoal.cli.training import own_device


def test_under_a_launcher_every_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert own_device("cuda") == "cuda"
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert own_device("cuda") == "cuda:3"
    assert [own_device(name) for name in ("cpu", "cuda:1")] == ["cpu", "cuda:1"]
