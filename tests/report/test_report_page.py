from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import report_documents as documents

from shoal.errors import UsageError
from shoal.report import render
from shoal.report.page import SECTIONS
from shoal.schema import Document, Example

ATTACK = "<script>alert(1)</script><img src=https://example.org/x.png onerror=alert(2)>\"'&</style>"
FETCHING = {"src", "srcset", "poster", "data", "background", "action", "formaction", "ping", "manifest"}


class Page(HTMLParser):
    """Collects what a browser would see: elements, scripts, captions, headings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside = tag

    def handle_endtag(self, tag):
        if tag == self._inside:
            self._inside = ""

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts.append(data)
        elif not self._inside:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def rendered(folder: Path, *items: Document | tuple[str, Document]) -> Page:
    return Page(render(items, folder / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Page:
    return rendered(tmp_path_factory.mktemp("report"), *documents.everything())


def test_what_the_pictures_of_the_documents_show_is_in_the_page(page):
    """The script itself needs Chromium and Pillow, and a report that takes as long as the demo."""
    root = Path(__file__).parents[2]
    pictures = dict(re.findall(r'Picture\("(\w+)", "([#\w]+)"', (root / "docs/make_pictures.py").read_text()))
    assert {f"{name}.png" for name in pictures} == {path.name for path in (root / "docs/pictures").iterdir()}
    names = {attributes.get("id") for attributes in page.all("section")}
    assert {element.removeprefix("#") for element in pictures.values() if element != "body"} <= names


def test_every_section_has_a_heading_and_a_link(page):
    links = {attributes.get("href") for attributes in page.all("a")}
    names = {attributes.get("id") for attributes in page.all("section")}
    assert names == {"summary", *(module.ID for module in SECTIONS)}
    assert {f"#{name}" for name in names} <= links
    assert len(page.all("h1")) == 1


def test_nothing_is_missing_when_all_documents_are_there(page):
    assert "Not measured:" not in page.text.replace("Not measured in this scope:", "")


def test_the_headline_says_how_many_layers_can_go_with_its_interval(page):
    assert "3 of 30 decoder layers may go, at +7.8 % [+2.8, +15.8] relative WER" in page.text
    assert "Generating speech was not tested" in page.text
    assert "chosen and scored on the same clips" in page.text


def test_each_plan_is_an_explicit_list_and_a_half_open_range(page):
    assert "list: 21, 22, 23, 24; range [21, 25)" in page.text
    assert "layer_range: - 25 - 30" in page.text


def test_ids_are_unique(page):
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_every_table_has_a_caption_and_every_control_a_label(page):
    assert len(page.all("table")) == len(page.all("caption")) > 10
    assert len(page.all("input")) <= len(page.all("label"))
    assert all(attributes.get("aria-label") for attributes in page.all("div") if attributes.get("role"))
    assert all(attributes.get("aria-label") for attributes in page.all("svg") if attributes.get("role"))


def test_nothing_is_loaded_from_outside(page):
    for tag, attributes in page.elements:
        assert tag not in {"link", "iframe", "object", "embed", "base", "form"}
        assert not FETCHING & attributes.keys(), (tag, attributes)
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in "".join(a.get("style") or "" for _, a in page.elements)
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-inline" not in policy.split("style-src")[0]


def test_plotly_is_inside_once(page):
    assert sum("plotly.js v" in script[:200] for script in page.scripts) == 1


def test_every_figure_is_valid_json_with_a_place_to_be_drawn(page):
    places = {a["id"] for a in page.all("div") if a.get("class") == "canvas"}
    figures = [a["data-figure"] for a in page.all("script") if "data-figure" in a]
    assert places == set(figures)
    payloads = [json.loads(script) for script in page.scripts if script.startswith('{"default"')]
    assert len(payloads) == len(figures) >= 10
    assert all(payload["default"] in payload["variants"] for payload in payloads)


def test_text_from_data_stays_text(tmp_path):
    scores = documents.scores(
        examples=[Example(id=ATTACK, reference=ATTACK, outputs={ATTACK: ATTACK, "unpruned": "fine"})],
        normaliser=ATTACK,
    )
    scores.systems[1].name = ATTACK
    scores.systems[0].groups = {ATTACK: scores.systems[0].groups["speaker"]}
    audit = documents.measured_audit()
    audit.model, audit.task = documents.model(ref=ATTACK, licence=ATTACK), ATTACK
    audit.inputs["speech"].importance[0].refused = {0: ATTACK}
    audit.inputs["speech"].trust[0].metrics[0].metric = ATTACK
    audit.provenance.command = ["shoal", ATTACK]
    matrix = documents.task_matrix(measure=ATTACK, unit=ATTACK)
    matrix.sides[0].label = ATTACK
    search = documents.search(reason=ATTACK, score_name=ATTACK, strategy=ATTACK)
    page = rendered(tmp_path, (ATTACK, audit), scores, documents.plan(ATTACK), matrix, search)
    assert not page.all("img")
    assert "alert(1)" in page.text
    executable = [a for a in page.all("script") if a.get("type") != "application/json"]
    assert len(executable) == 2
    assert not [a for _, a in page.elements if any(name.startswith("on") for name in a)]


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        (documents.audit, {"comparison", "cost", "examples", "savings"}),
        (documents.comparison, {"parameters", "redundancy", "blocks", "cost", "examples", "savings"}),
        (documents.plan, {"parameters", "redundancy", "blocks", "comparison", "cost", "examples", "savings"}),
        (documents.scores, {"redundancy", "blocks", "comparison", "savings"}),
        (documents.bench, {"redundancy", "blocks", "comparison", "cost", "examples"}),
    ],
)
def test_what_was_not_measured_is_said(tmp_path, given, missing):
    page = rendered(tmp_path, given())
    absent = {a["href"].removeprefix("#") for a in page.all("a") if a.get("class") == "absent"}
    assert absent == missing
    assert page.text.count("Not measured:") >= len(missing)


def test_without_figures_there_is_no_plotly(tmp_path):
    path = render([documents.plan()], tmp_path / "report.html")
    assert path.stat().st_size < 200_000


def test_an_audit_without_intervals_says_so(tmp_path):
    page = rendered(tmp_path, documents.audit(sure=False))
    assert "No intervals: there was nothing to resample." in page.text
    assert "(no interval)" in page.text


def test_an_audit_with_one_input_says_what_the_other_lacks(tmp_path):
    page = rendered(tmp_path, documents.audit(inputs=("text",)))
    notes = [json.loads(script) for script in page.scripts if "Not measured" in script and script.startswith("{")]
    assert any("no speech input" in str(note) for note in notes)


def test_several_audits_each_have_their_controls(tmp_path):
    page = rendered(tmp_path, documents.audit(), documents.audit(task="ast"))
    assert {a.get("data-group") for a in page.all("input")} == {"audit-0", "audit-1"}
    assert "pkg:reference · ast" in page.text


def test_an_empty_model_part_is_left_out(tmp_path):
    model = documents.model(encoder_parameters=0, projector_parameters=0, kind="causal_lm")
    assert "Encoder 5" not in rendered(tmp_path, documents.audit(model=model)).text


def test_scores_of_the_unpruned_model_alone(tmp_path):
    scores = documents.scores(examples=[])
    scores.systems = scores.systems[:1]
    assert "What pruning costs was not measured" in rendered(tmp_path, scores).text


def test_a_baseline_without_errors_has_no_relative_cost(tmp_path):
    scores = documents.scores()
    for system in scores.systems[1:]:
        delta = system.measures["WER"].delta
        assert delta is not None
        delta.relative = None
    assert "The relative cost of pruning is not known" in rendered(tmp_path, scores).text


def test_different_models_are_pointed_out(tmp_path):
    other = documents.bench(model=documents.model(ref="pkg:other", fingerprint="ff" * 32))
    assert "about 2 different models" in rendered(tmp_path, documents.audit(), other).text


NEW = {"importance", "trust", "tasks", "search"}


@pytest.mark.parametrize("given", [documents.audit, documents.plan, documents.scores, documents.bench])
def test_sections_without_data_are_left_out(tmp_path, given):
    page = rendered(tmp_path, given())
    assert not NEW & {attributes.get("id") for attributes in page.all("section")}


def test_an_edit_rate_of_a_translation_is_not_called_wer(tmp_path):
    page = rendered(tmp_path, documents.translation_scores())
    assert "WER" not in page.text
    assert "relative BLEU" in page.text
    assert "BLEU; higher is better" in page.text
    assert "tok:13a" in page.text
    assert "difference" in page.text
    assert " errors" not in page.text


def test_scores_without_any_measure_of_their_task_say_so(tmp_path):
    scores = documents.scores(task="ser")
    for system in scores.systems:
        system.measures = {}
    page = rendered(tmp_path, scores)
    assert "WER" not in page.text
    assert "hold no measure of their task" in page.text


def test_scores_of_several_tasks_are_shown_each_in_its_way(tmp_path):
    page = rendered(tmp_path, documents.scores(), documents.translation_scores())
    assert "WER against layers removed" in page.text
    assert "BLEU; higher is better" in page.text


def test_a_plan_for_a_part_of_its_layers_says_so(tmp_path):
    page = rendered(tmp_path, documents.partial_plan())
    assert "the attention of layers 21–24" in page.text
    assert "layer_range" not in page.text


def test_systems_without_a_part_of_their_layers_say_so(tmp_path):
    scores = documents.scores(data=documents.data(clips=400))
    for system in scores.systems[1:]:
        assert system.plan is not None
        system.plan.part = "mlp"
    page = rendered(tmp_path, scores)
    assert "The MLP of 2 of 30 decoder layers can go" in page.text
    assert "MLP of layers 24–25" in page.text


def test_a_search_says_what_it_chose_and_how_it_was_proved(tmp_path):
    page = rendered(tmp_path, documents.search())
    assert "3 of 30 decoder layers may go, at +7.8 %" in page.text
    assert "Chosen: contiguous-3, without layers 22–24" in page.text
    doubt = (
        "not confirmed: it holds on 20 unseen clips (p = 0.210; on the clips seen alone 0.125), but a loop on another "
        "could cost more: about 290 clips would be needed to confirm it"
    )
    assert f"[+2.8, +15.8], {doubt}" in page.text
    assert f"It was {doubt}." in page.text
    assert "may go, at" in page.text
    confirmed = rendered(tmp_path, documents.search(confirmed=True, confirmation_clips=100)).text
    assert "confirmed on 100 unseen clips (p = 0.002; on the clips seen alone 0.125)" in confirmed
    assert "can go at" in confirmed


def test_a_search_without_a_plan_says_why(tmp_path):
    search = documents.search(chosen=None, confirmations=[], reason="Nothing held.")
    page = rendered(tmp_path, search)
    assert "No plan was found with at most 25 %" in page.text
    assert "Nothing held." in page.text
    assert "No plan came as far as the clips that confirm." in page.text


def test_a_search_that_was_not_confirmed_does_not_claim_it(tmp_path):
    page = rendered(tmp_path, documents.search(confirmations=[]))
    assert "3 of 30 decoder layers may go" in page.text
    assert "it was not tested on unseen clips" in page.text


def test_refused_candidates_are_named_with_their_reason(page):
    assert "clip clip-03: the loss without it is not finite" in page.text


def test_importance_without_intervals_is_shown(tmp_path):
    page = rendered(tmp_path, documents.measured_audit(sure=False))
    assert "importance" in {attributes.get("id") for attributes in page.all("section")}


def test_a_task_matrix_alone_makes_a_report(tmp_path):
    page = rendered(tmp_path, documents.task_matrix())
    assert "What each side loses under another’s plan" in page.text
    assert "own plan" in page.text


def test_nothing_to_report_is_refused(tmp_path):
    with pytest.raises(UsageError, match="nothing to report"):
        render([], tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_a_report_of_everything_needs_no_torch(tmp_path):
    """A report is made from files; loading torch would take longer than all the rest of it."""
    paths = [document.save(tmp_path / str(n) / name) for n, (name, document) in enumerate(documents.everything())]
    code = (
        "import sys; from shoal.cli import entry\n"
        "try: entry()\n"
        "except SystemExit as ended: assert not ended.code, ended.code\n"
        "print([name for name in ('torch', 'transformers', 'peft') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, "report", *map(str, paths), "--out", str(tmp_path / "report.html")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "LoRA on the MLP behind the cut" in (tmp_path / "report.html").read_text(encoding="utf-8")
