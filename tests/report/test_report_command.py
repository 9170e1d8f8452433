from __future__ import annotations

import re

import report_documents as documents

from shoal.cli import main


def test_a_folder_is_taken_for_the_documents_in_it(tmp_path, capsys):
    documents.audit().save(tmp_path / "audit" / "audit.json")
    documents.scores().save(tmp_path / "model" / "validation" / "scores-1.json")
    documents.plan().save(tmp_path / "model" / "plan.json")
    (tmp_path / "model" / "config.json").write_text('{"model_type": "llama"}')
    out = tmp_path / "r.html"
    assert main(["report", str(tmp_path / "audit"), str(tmp_path / "model"), "--out", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    assert all(name in text for name in ("audit.json", "scores-1.json", "plan.json"))
    assert "config.json" not in text
    (tmp_path / "empty").mkdir()
    capsys.readouterr()
    assert main(["report", str(tmp_path / "empty"), "--out", str(out)]) == 2
    assert "no Shoal file in this folder" in capsys.readouterr().err


def test_the_command_writes_the_report_and_prints_its_path(tmp_path, capsys):
    paths = [
        str(documents.audit().save(tmp_path / "a.json")),
        str(documents.plan().save(tmp_path / "p.json")),
    ]
    assert main(["report", *paths, "--out", str(tmp_path / "r.html"), "--title", "A <title>"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert re.search(r"<h1[^>]*>A &lt;title&gt;</h1>", text)
    assert f"{tmp_path / 'a.json'}" in text
