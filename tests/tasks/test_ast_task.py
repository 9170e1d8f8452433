"""Translation: the target, and which rows are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shoal import tasks
from shoal.data import Row
from shoal.errors import ManifestError

AST = tasks.get("ast")


def row(**fields: Any) -> Row:
    return Row("r", Path("a.wav"), 1.0, text="ein Ton", lang="de", fields=fields, manifest="m.jsonl", line=3)


@pytest.mark.parametrize("more", [{}, {"target_lang": "en"}, {"target_lang": "English"}, {"target_lang": None}])
def test_the_target_is_the_translation_into_english(more) -> None:
    assert AST.target(row(translation=" A tone,\n loud. ", **more)) == "A tone, loud."


@pytest.mark.parametrize("target_lang", ["fr", "zh-CN", 7, ""])
def test_another_target_language_is_refused_in_one_line(target_lang) -> None:
    with pytest.raises(ManifestError, match=r"^m\.jsonl:3: target_lang is .* asks for English; keep rows"):
        AST.target(row(translation="un ton", target_lang=target_lang))


@pytest.mark.parametrize(("value", "said"), [("", "no translation"), (" ", "no translation"), (["a"], "is not text")])
def test_a_translation_that_is_none_is_refused(value, said) -> None:
    with pytest.raises(ManifestError, match=said):
        AST.target(row(translation=value))


def test_case_and_punctuation_count() -> None:
    assert AST.normaliser("de")(" Hello,\tWorld! ") == "Hello, World!"
