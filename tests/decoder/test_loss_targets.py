"""Which tokens a loss is taken over, and where each of them is predicted."""

from __future__ import annotations

import pytest
import torch

from shoal.decoder.logits import token_losses
from shoal.decoder.loss_targets import targets_of
from shoal.errors import MeasureError
from shoal.models.batch import Kind, PreparedBatch

P, A, T, N, B = Kind.PROMPT, Kind.AUDIO, Kind.TEXT, Kind.PAD, Kind.BEFORE


def batch(*, left: bool = False, ends: bool = True) -> PreparedBatch:
    """Two rows, the second shorter: prompt, audio without tokens, prompt, response."""
    rows = [[P, A, A, P, T, T], [P, A, P, T]]
    tokens = [[10, -1, -1, 11, 12, 13], [20, -1, 21, 22]]
    pad = [N, N]
    kinds = [rows[0], pad + rows[1] if left else rows[1] + pad]
    ids = [tokens[0], [-1, -1] + tokens[1] if left else tokens[1] + [-1, -1]]
    kinds_, ids_ = torch.tensor(kinds, dtype=torch.uint8), torch.tensor(ids)
    return PreparedBatch(["a", "b"], torch.zeros(2, 6, 3), kinds_, ids_, ends=ends)


def triples(scope: str, **options: bool) -> list[tuple[int, int, int]]:
    found = targets_of(batch(**options), scope, (2,))
    return list(zip(found.rows.tolist(), found.positions.tolist(), found.tokens.tolist(), strict=True))


def test_the_response_is_predicted_one_position_before_and_its_end_after_it() -> None:
    assert triples("response") == [(0, 3, 12), (0, 4, 13), (0, 5, -1), (1, 2, 22), (1, 3, -1)]


def test_padding_on_the_left_moves_positions_and_nothing_else() -> None:
    assert triples("response", left=True) == [(0, 3, 12), (0, 4, 13), (0, 5, -1), (1, 4, 22), (1, 5, -1)]


def test_a_text_that_stands_alone_has_no_end() -> None:
    assert triples("response", ends=False) == [(0, 3, 12), (0, 4, 13), (1, 2, 22)]


def test_the_last_position_predicts_the_first_token_of_the_response() -> None:
    assert triples("last") == [(0, 3, 12), (1, 2, 22)]


def test_a_text_that_stands_alone_has_a_last_token_and_no_prompt() -> None:
    """Its length may differ, and it may be padded on either side."""
    for rows in ([[B, T, T, T], [B, T, N, N]], [[B, T, T, T], [N, N, B, T]]):
        kinds, tokens = torch.tensor(rows, dtype=torch.uint8), torch.arange(8).reshape(2, 4)
        alone = PreparedBatch(["a", "b"], torch.zeros(2, 4, 3), kinds, tokens, ends=False)
        last = [3, 1 if rows[1][0] == B else 3]
        assert alone.scope("last").nonzero().tolist() == [[0, last[0]], [1, last[1]]]
        assert not alone.scope("prompt").any()
        targets = targets_of(alone, "last", ())
        assert targets.positions.tolist() == [place - 1 for place in last]
        assert targets.tokens.tolist() == [3, 4 + last[1]]


def test_the_first_position_is_predicted_by_nothing() -> None:
    assert triples("prompt") == [(0, 2, 11), (1, 1, 21)]
    assert triples("prompt", left=True) == [(0, 2, 11), (1, 3, 21)]


def test_audio_has_no_tokens() -> None:
    with pytest.raises(MeasureError, match="clip a: no token in scope audio"):
        targets_of(batch(), "audio", (2,))


def test_any_end_token_ends_a_response() -> None:
    logits = torch.randn(2, 7, generator=torch.Generator().manual_seed(0))
    share = torch.softmax(logits.double(), -1)
    losses = token_losses(logits, torch.tensor([3, -1]), (2, 5))
    assert losses.tolist() == pytest.approx(
        [-float(share[0, 3].log()), -float((share[1, 2] + share[1, 5]).log())], rel=1e-5
    )
