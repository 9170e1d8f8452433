"""`shoal families`: the table is the record's, the document is the table's."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from shoal.cli import main
from shoal.models.families import table
from tiny_audio import BUILDS

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "families.md"


def test_every_tiny_class_is_in_the_table():
    assert set(BUILDS) <= {one.class_name for one in table.supported()}


def test_twenty_audio_classes_are_audited_pruned_and_reloaded():
    audited = [one for one in table.supported() if "speech" in one.audit and not one.how]
    assert all({"load", "keys", "tensors", "logits", "round_trip"} <= set(one.checks) for one in audited)
    assert all(one.prune == ("memory", "disk") for one in audited)
    assert len([one for one in audited if "cache" in one.checks]) >= 20


def test_the_document_holds_the_table():
    document = DOCUMENT.read_text(encoding="utf-8")
    assert table.as_table().as_markdown() in document
    assert f"transformers {table.transformers_version()}" in document


def test_the_command_prints_markdown_csv_and_json(capsys):
    assert main(["families"]) == 0
    assert capsys.readouterr().out.strip() == table.as_table().as_markdown()
    assert main(["families", "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["class"].strip("`") for row in rows] == [one.class_name for one in table.supported()]
    assert main(["families", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {one["class_name"] for one in found["classes"]} == {one.class_name for one in table.supported()}
