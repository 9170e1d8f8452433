"""Make the pictures of the README from a report: its first screen, and its heatmaps.

python docs/make_pictures.py shoal-demo/report.html

Needs Chromium and Pillow.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

FOLDER = Path(__file__).with_name("pictures")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--allow-file-access-from-files",
    "--virtual-time-budget=20000",
)
# The report's own policy allows no further script, so another page shows it in a frame and scrolls there.
FRAME = """<!DOCTYPE html><meta charset="utf-8"><body style="margin:0">
<iframe src="{report}" style="border:0;width:{width}px;height:{height}px"></iframe>
<script>
addEventListener("load", () => setTimeout(() => {{
  const page = document.querySelector("iframe").contentDocument;
  page.querySelector("{element}").scrollIntoView({{ behavior: "instant" }});
}}, 2000));
</script>"""


@dataclass(frozen=True)
class Picture:
    """A part of the report, from an element (CSS selector) down; width and height in pixels."""

    name: str
    element: str
    width: int
    height: int


PICTURES = (Picture("report", "body", 1180, 950), Picture("heatmap", "#redundancy", 1180, 752))


def main(report: str) -> None:
    """Make every picture of the report at this path."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("no Chromium: install it (apt-get install chromium) and run this again")
    FOLDER.mkdir(exist_ok=True)
    for picture in PICTURES:
        with tempfile.TemporaryDirectory() as folder:
            image = photograph(chromium, Path(report).resolve(), picture, Path(folder))
            # 256 colours are enough for a page, and a third of the size.
            Image.open(image).convert("RGB").quantize(256).save(FOLDER / f"{picture.name}.png", optimize=True)


def photograph(chromium: str, report: Path, picture: Picture, folder: Path) -> Path:
    """Draw one picture in `folder`, and give its path."""
    page, image = folder / "page.html", folder / "picture.png"
    page.write_text(
        FRAME.format(report=report.as_uri(), width=picture.width, height=picture.height, element=picture.element),
        encoding="utf-8",
    )
    size = f"--window-size={picture.width},{picture.height}"
    profile = f"--user-data-dir={folder / 'profile'}"
    subprocess.run(
        [chromium, *FLAGS, size, profile, f"--screenshot={image}", page.as_uri()],
        check=True,
        capture_output=True,
        timeout=300,
    )
    return image


if __name__ == "__main__":
    main(*sys.argv[1:])
