"""The clips that ship with the package."""

from __future__ import annotations

import json

from shoal.demo import clips_manifest


def test_every_clip_is_there_and_every_file_is_listed() -> None:
    manifest = clips_manifest()
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    listed = {row["audio_filepath"] for row in rows}
    assert len(listed) == len(rows) == 55
    assert listed == {path.name for path in manifest.parent.glob("*.opus")}


def test_only_held_out_clips_ship() -> None:
    rows = [json.loads(line) for line in clips_manifest().read_text(encoding="utf-8").splitlines()]
    assert {row["split"] for row in rows} == {"test"}


def test_licence_and_attribution_lie_beside_the_clips() -> None:
    text = (clips_manifest().parent / "ATTRIBUTION.md").read_text(encoding="utf-8")
    for needed in ("ShareAlike 3.0", "Allison Smith", "Changed from the originals"):
        assert needed in text
