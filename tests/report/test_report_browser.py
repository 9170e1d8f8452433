"""The report in headless Chromium: everything is drawn, nothing is requested, nothing is too wide."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import report_documents as documents

from shoal.report import render

pytestmark = pytest.mark.browser
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

CONTROL = "http://shoal.invalid/control"
"""Requested by the harness itself, to show that a request would be seen."""

# Loads the report in frames of both widths, presses controls, and writes what it finds into the title.
HARNESS = (
    f"""<script>new Image().src = "{CONTROL}";</script>
"""
    + """<!DOCTYPE html><meta charset="utf-8"><body style="margin:0">
<iframe data-width="1400" width="1400" height="900" src="report.html"></iframe>
<iframe data-width="390" width="390" height="900" src="report.html"></iframe>
<script>
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
async function look(frame) {
  const page = frame.contentDocument, root = page.documentElement;
  const press = (control, value) =>
    [...page.querySelectorAll(`input[data-control="${control}"]`)].find((i) => i.value === value).click();
  const cells = (id) => page.querySelectorAll(`#${id} .hm image`).length;
  const found = {
    overflow: root.scrollWidth - root.clientWidth,
    tooWide: [...page.querySelectorAll(".canvas")].filter((c) => {
      const svg = c.querySelector("svg.main-svg");
      return svg && svg.getBoundingClientRect().width > c.getBoundingClientRect().width + 1;
    }).map((c) => c.id),
    figures: [...page.querySelectorAll(".canvas")].map((c) => ({
      id: c.id,
      svg: c.querySelectorAll("svg.main-svg").length,
      marks: c.querySelectorAll(".trace, .hm image, .bars .point").length,
    })),
  };
  const heat = page.querySelector("#heatmap-0-speech");
  found.raw = heat.data[0].zmax;
  press("scale", "row");
  await wait(300);
  found.row = heat.data[0].zmax;
  press("variant", "audio");
  await wait(300);
  found.note = page.querySelector("#heatmap-0-text").textContent;
  found.shown = [...page.querySelectorAll('[data-variant]')]
    .filter((e) => e.dataset.group === "audit-0" && !e.classList.contains("other"))
    .map((e) => e.dataset.variant);
  const size = page.querySelector('input[data-group="trust-0-0"][value="8"]');
  size.click();
  await wait(300);
  found.said = [...page.querySelectorAll('.said-so[data-group="trust-0-0"]:not(.other)')].map((e) => e.dataset.variant);
  press("variant", "response");
  await wait(300);
  found.back = cells("heatmap-0-text");
  return found;
}
addEventListener("load", async () => {
  await wait(1500);
  const result = {};
  for (const frame of document.querySelectorAll("iframe"))
    result[frame.dataset.width] = await look(frame).catch((error) => ({ error: String(error.stack) }));
  const out = document.createElement("pre");
  out.id = "result";
  out.textContent = JSON.stringify(result);
  document.body.replaceChildren(out);
});
</script>"""
)


@dataclass(frozen=True)
class Visit:
    """What the harness found, by width, and every address that a page asked for."""

    found: dict[str, dict[str, object]]
    requests: set[str]


@pytest.fixture(scope="module")
def visit(tmp_path_factory) -> Visit:
    if CHROMIUM is None:
        pytest.skip("no Chromium")
    folder = tmp_path_factory.mktemp("browser")
    render(documents.everything(), folder / "report.html")
    (folder / "harness.html").write_text(HARNESS, encoding="utf-8")
    dom = run_chromium(folder, folder / "net.json")
    match = re.search(r'<pre id="result">(.*?)</pre>', dom, re.DOTALL)
    assert match, dom[:500]
    return Visit(json.loads(match[1].replace("&gt;", ">").replace("&amp;", "&")), requests(folder / "net.json"))


def run_chromium(folder: Path, log: Path) -> str:
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-extensions",
        "--no-first-run",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--allow-file-access-from-files",
        "--window-size=1900,1000",
        "--virtual-time-budget=30000",
        f"--user-data-dir={folder / 'profile'}",
        f"--log-net-log={log}",
        "--dump-dom",
    ]
    command = [str(CHROMIUM), *flags, (folder / "harness.html").as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def requests(log: Path) -> set[str]:
    """Addresses that pages asked for, from the network log; what Chromium asks for itself has no origin."""
    events = [json.loads(line.rstrip(",\n")) for line in log.open(encoding="utf-8") if line.startswith('{"params"')]
    return {
        event["params"]["url"]
        for event in events
        if "url" in event["params"] and event["params"].get("initiator", "not an origin") != "not an origin"
    }


@pytest.mark.parametrize("width", ["1400", "390"])
def test_every_figure_is_drawn(visit, width):
    found = visit.found[width]
    assert "error" not in found, found
    assert len(found["figures"]) >= 10
    assert [f["id"] for f in found["figures"] if not f["svg"] or not f["marks"]] == []


@pytest.mark.parametrize("width", ["1400", "390"])
def test_the_page_does_not_scroll_sideways(visit, width):
    assert visit.found[width]["overflow"] <= 0
    assert visit.found[width]["tooWide"] == []


def test_controls_change_the_figures(visit):
    found = visit.found["1400"]
    assert found["raw"] != found["row"] == 1
    assert "nothing stands in the audio slot" in found["note"]
    assert set(found["shown"]) == {"audio"}
    assert found["back"] == 1
    assert found["said"] == ["8"]


def test_no_request_leaves_the_file(visit):
    outside = {url for url in visit.requests if not url.startswith(("file:", "data:", "blob:", "about:"))}
    assert outside == {CONTROL}
