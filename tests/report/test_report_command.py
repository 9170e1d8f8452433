from __future__ import annotations

import re

import report_documents as documents

from shoal.cli import main


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
