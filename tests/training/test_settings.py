"""What a person writes by hand means the same in every command."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from shoal.healing.settings import HealSettings
from shoal.training.recipe import DecoderLora
from shoal.training.settings import LoraSettings


@pytest.mark.parametrize("settings", [LoraSettings, lambda **given: HealSettings(target="joint", **given), DecoderLora])
def test_alpha_is_the_rank_unless_given(settings):
    assert settings().alpha == settings().rank
    assert settings(rank=8).alpha == 8.0
    assert settings(rank=8, alpha=2).alpha == 2.0
    with pytest.raises(ValidationError, match="alpha"):
        settings(alpha=0)


def test_a_record_written_before_means_what_it_did():
    kept = HealSettings(target="joint", rank=16, alpha=64.0)
    assert HealSettings.model_validate(kept.model_dump()) == kept
