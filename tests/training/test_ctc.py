from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from shoal.training.ctc import BLANK, CtcAlignment, vocabulary_of

SIZE = 6
TABLE = torch.randn(12, SIZE, generator=torch.Generator().manual_seed(3)) * 0.1
VOCABULARY = [2, 5, 7]
OUTSIDE = 3


def make(double: bool = False) -> CtcAlignment:
    """An alignment whose parameters are not those of the start."""
    alignment = CtcAlignment(TABLE, VOCABULARY)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        alignment.blank.copy_(torch.randn(SIZE, generator=generator))
        alignment.blank_bias.fill_(0.3)
        alignment.log_temperature.fill_(math.log(1.7))
    return alignment.double() if double else alignment


def vectors_of(count: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(count, SIZE, generator=torch.Generator().manual_seed(seed)).to(dtype)


def batch(*clips: tuple[torch.Tensor, list[int]]) -> tuple[torch.Tensor, ...]:
    """The arguments of `forward`."""
    return (
        torch.cat([vectors for vectors, _ in clips]),
        torch.tensor([len(vectors) for vectors, _ in clips]),
        torch.tensor([token for _, tokens in clips for token in tokens], dtype=torch.int64),
        torch.tensor([len(tokens) for _, tokens in clips]),
    )


def collapse(path: tuple[int, ...]) -> list[int]:
    return [left for left, _ in itertools.groupby(path) if left != 0]


def slow_logits(alignment: CtcAlignment, vectors: torch.Tensor) -> np.ndarray:
    def normalised(vector: np.ndarray) -> np.ndarray:
        return vector / np.sqrt(np.mean(vector**2))

    temperature, bias = math.exp(alignment.log_temperature.item()), alignment.blank_bias.item()
    blank = alignment.blank.detach().double().numpy()
    rows = []
    for vector in vectors.double().numpy():
        x = normalised(vector)
        row = [x @ blank / temperature + bias]
        row += [x @ normalised(TABLE[token].double().numpy()) / temperature for token in VOCABULARY]
        rows.append(row)
    return np.array(rows)


def slow_loss(alignment: CtcAlignment, vectors: torch.Tensor, tokens: list[int]) -> float:
    """Minus the log of the summed probabilities of all paths that collapse to the tokens."""
    scores = np.exp(slow_logits(alignment, vectors))
    probabilities = scores / scores.sum(1, keepdims=True)
    wanted = [VOCABULARY.index(token) + 1 for token in tokens]
    paths = itertools.product(range(len(VOCABULARY) + 1), repeat=len(vectors))
    total = sum(
        math.prod(probabilities[time, label] for time, label in enumerate(path))
        for path in paths
        if collapse(path) == wanted
    )
    return -math.log(total)


# --- The loss -------------------------------------------------------------------------------------


CASES = [(1, [5]), (3, [2]), (4, [2, 7]), (3, [5, 5]), (5, [2, 2, 7]), (5, [7, 7, 7]), (6, [2, 5, 2])]


@pytest.mark.parametrize(("count", "tokens"), CASES)
def test_the_loss_is_the_sum_over_all_alignments(count, tokens):
    vectors = vectors_of(count, seed=count)
    expected = slow_loss(make(), vectors, tokens)
    assert make()(*batch((vectors, tokens))).item() == pytest.approx(expected, rel=1e-5)
    exact = make(double=True)(*batch((vectors.double(), tokens)))
    assert exact.dtype == torch.float64
    # The embeddings were normalised in float32.
    assert exact.item() == pytest.approx(expected, rel=1e-6)


def test_logits_are_scaled_dot_products_with_blank_first():
    vectors = vectors_of(4)
    logits = make().logits(vectors)
    assert logits.shape == (4, len(VOCABULARY) + 1)
    np.testing.assert_allclose(logits.detach(), slow_logits(make(), vectors), rtol=1e-5, atol=1e-6)


def test_at_the_start_blank_is_as_likely_as_all_tokens_of_score_zero():
    alignment = CtcAlignment(TABLE, VOCABULARY)
    logits = alignment.logits(torch.zeros(1, SIZE))
    assert logits.softmax(-1)[0, 0].item() == pytest.approx(0.5)
    itself = alignment.logits(TABLE[VOCABULARY])[:, 1:].diagonal()
    torch.testing.assert_close(itself, torch.full((3,), math.sqrt(SIZE)))


def test_scales_of_vectors_and_table_do_not_matter():
    vectors = vectors_of(4)
    logits = make().logits(vectors)
    torch.testing.assert_close(make().logits(vectors * 0.01), logits, rtol=1e-4, atol=1e-4)
    small = CtcAlignment(TABLE * 0.05, VOCABULARY)
    small.load_state_dict(make().state_dict())
    torch.testing.assert_close(small.logits(vectors), logits, rtol=1e-3, atol=1e-3)


def test_gradients_agree_with_finite_differences():
    alignment = make(double=True)
    vectors = vectors_of(11, dtype=torch.float64).requires_grad_()
    _, *rest = batch((vectors[:4], [2, 7]), (vectors[4:6], [5, 5]), (vectors[6:], [7, 7, 2]))
    names = [name for name, _ in alignment.named_parameters()]
    assert sorted(names) == ["blank", "blank_bias", "log_temperature"]

    def losses(given, *parameters):
        changed = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(alignment, changed, (given, *rest))

    assert torch.autograd.gradcheck(losses, (vectors, *alignment.parameters()))


def test_clips_alone_and_together_are_the_same():
    clips = [(vectors_of(count, seed=count), tokens) for count, tokens in CASES]
    alignment = make()
    alone = torch.cat([alignment(*batch(clip)) for clip in clips])
    torch.testing.assert_close(alignment(*batch(*clips)), alone)
    torch.testing.assert_close(alignment(*batch(*reversed(clips))), alone.flip(0))


def test_gradients_of_a_batch_are_those_of_its_clips():
    clips = [(vectors_of(count, seed=count).requires_grad_(), tokens) for count, tokens in CASES]
    alignment = make()
    given = [vectors for vectors, _ in clips]
    alone = [torch.autograd.grad(alignment(*batch(clip)).sum(), clip[0])[0] for clip in clips]
    together = torch.autograd.grad(alignment(*batch(*clips)).sum(), given)
    for expected, found in zip(alone, together, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_vectors_give_float32_losses(dtype):
    vectors = vectors_of(5).to(dtype).requires_grad_()
    losses = make()(*batch((vectors, [2, 7])))
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, make()(*batch((vectors.detach().float(), [2, 7]))))
    losses.sum().backward()
    assert vectors.grad is not None
    assert vectors.grad.dtype == dtype
    assert vectors.grad.isfinite().all()


def test_autocast_does_not_lower_the_precision():
    vectors = vectors_of(5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, losses = make().logits(vectors), make()(*batch((vectors, [2, 7])))
    assert logits.dtype == losses.dtype == torch.float32
    assert torch.equal(logits, make().logits(vectors))


def test_a_half_precision_module_computes_in_float32():
    assert make().bfloat16().logits(vectors_of(3).bfloat16()).dtype == torch.float32


def test_a_half_precision_table_is_normalised_in_float32():
    alignment = CtcAlignment(TABLE.bfloat16(), VOCABULARY)
    assert alignment.rows.dtype == torch.float32
    torch.testing.assert_close(alignment.rows.square().mean(1), torch.ones(len(VOCABULARY)))


def test_int32_counts_and_tokens_do():
    vectors, *rest = batch((vectors_of(4), [2, 2]), (vectors_of(3), [5]))
    expected = make()(vectors, *rest)
    assert torch.equal(make()(vectors, *(each.int() for each in rest)), expected)


# --- Clips that cannot be aligned -----------------------------------------------------------------

UNALIGNABLE = {
    "too short": (vectors_of(1), [2, 5]),
    "too short for the repeat": (vectors_of(2), [5, 5]),
    "outside the vocabulary": (vectors_of(4), [2, OUTSIDE]),
    "beyond the table": (vectors_of(4), [2, 400]),
    "negative": (vectors_of(4), [-100]),
    "no token": (vectors_of(4), []),
    "no position": (vectors_of(0), [2]),
    "nothing": (vectors_of(0), []),
}


@pytest.mark.parametrize("name", UNALIGNABLE)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_clip_that_cannot_be_aligned_gives_nothing(name, place):
    good = [(vectors_of(3, seed=1), [2]), (vectors_of(3, seed=2), [5, 5])]
    clips = [*good[:place], UNALIGNABLE[name], *good[place:]]
    vectors, *rest = batch(*clips)
    vectors.requires_grad_()
    alignment = make()
    assert alignment.alignable(*rest).tolist() == [index != place for index in range(3)]
    losses = alignment(vectors, *rest)
    assert losses[place] == 0
    torch.testing.assert_close(losses[torch.arange(3) != place], alignment(*batch(*good)))
    losses.sum().backward()
    owner = torch.arange(3).repeat_interleave(rest[0])
    assert vectors.grad is not None
    assert (vectors.grad[owner == place] == 0).all()
    assert (vectors.grad[owner != place] != 0).any(1).all()
    assert all(parameter.grad.isfinite().all() for parameter in alignment.parameters())


def test_a_batch_of_nothing_but_such_clips_has_zero_gradients():
    vectors, *rest = batch(*UNALIGNABLE.values())
    vectors.requires_grad_()
    alignment = make()
    losses = alignment(vectors, *rest)
    assert losses.tolist() == [0.0] * len(UNALIGNABLE)
    losses.sum().backward()
    gradients = [vectors.grad, *(parameter.grad for parameter in alignment.parameters())]
    assert all(gradient is not None and (gradient == 0).all() for gradient in gradients)


def test_bad_values_in_such_a_clip_do_not_spread():
    bad = torch.full((4, SIZE), math.nan)
    vectors, *rest = batch((bad, [OUTSIDE]), (vectors_of(3), [2]))
    vectors.requires_grad_()
    losses = make()(vectors, *rest)
    losses.sum().backward()
    assert losses.isfinite().all()
    assert vectors.grad is not None
    assert vectors.grad.isfinite().all()


def test_equal_tokens_of_two_neighbouring_clips_are_no_repeat():
    _, *rest = batch((vectors_of(1), [5]), (vectors_of(1), [5]))
    assert make().alignable(*rest).tolist() == [True, True]


def test_silent_clips_of_zeros_have_finite_gradients():
    vectors = torch.zeros(4, SIZE).requires_grad_()
    losses = make()(*batch((vectors, [2])))
    losses.sum().backward()
    assert losses.isfinite().all()
    assert vectors.grad is not None
    assert vectors.grad.isfinite().all()


def test_counts_and_lengths_must_add_up():
    vectors, counts, tokens, lengths = batch((vectors_of(4), [2, 5]))
    with pytest.raises(ValueError, match="4 vectors, but counts add up to 5"):
        make()(vectors, counts + 1, tokens, lengths)
    with pytest.raises(ValueError, match="4 vectors, but counts add up to 3"):
        make()(vectors, counts - 1, tokens, lengths)
    with pytest.raises(ValueError, match="2 tokens, but lengths add up to 1"):
        make().alignable(counts, tokens, lengths - 1)


# --- Decoding -------------------------------------------------------------------------------------


@torch.no_grad()
def greedy(alignment: CtcAlignment, vectors: torch.Tensor, counts: torch.Tensor) -> list[list[int]]:
    """What the likeliest class at each position of a clip says: repeats are merged, then blanks dropped."""
    best = [classes.tolist() for classes in alignment.logits(vectors).argmax(-1).split(counts.tolist())]
    runs = [[number for number, _ in itertools.groupby(clip)] for clip in best]
    return [[int(alignment.ids[number - 1]) for number in clip if number != BLANK] for clip in runs]


def said(*classes: int) -> tuple[CtcAlignment, torch.Tensor]:
    """Vectors that point at these classes; class 0 (blank) has its own direction."""
    alignment = CtcAlignment(torch.eye(SIZE)[:4] * 0.1, [1, 2, 3])
    with torch.no_grad():
        alignment.blank.copy_(torch.eye(SIZE)[0] * math.sqrt(SIZE))
    return alignment, torch.eye(SIZE)[list(classes)] * 3


def test_greedy_merges_repeats_and_drops_blanks():
    alignment, vectors = said(0, 1, 1, 0, 1, 2, 2, 0, 0, 3)
    assert greedy(alignment, vectors, torch.tensor([10])) == [[1, 1, 2, 3]]


def test_greedy_keeps_clips_apart():
    alignment, vectors = said(1, 1, 1, 2, 0, 0, 2, 2)
    counts = torch.tensor([2, 0, 1, 1, 2, 2])
    assert greedy(alignment, vectors, counts) == [[1], [], [1], [2], [], [2]]


def test_greedy_of_nothing():
    assert greedy(make(), vectors_of(0), torch.tensor([0, 0])) == [[], []]
    assert greedy(make(), vectors_of(0), torch.tensor([], dtype=torch.int64)) == []


def test_scaled_embeddings_between_blanks_are_decoded_exactly():
    generator = torch.Generator().manual_seed(1)
    table = torch.randn(300, 64, generator=generator) * 0.13
    vocabulary = list(range(0, 300, 3))
    alignment = CtcAlignment(table, vocabulary)
    blank = torch.randn(64, generator=generator)
    with torch.no_grad():
        alignment.blank.copy_(blank)
    targets = [[3, 3, 9], [297], [0, 150, 0, 0], [60, 63]]
    clips = []
    for tokens in targets:
        pairs = [torch.stack([table[token] * 7, blank]) for token in tokens]
        clips.append((torch.cat([blank[None], *pairs]), tokens))
    vectors, counts, *rest = batch(*clips)
    assert greedy(alignment, vectors, counts) == targets
    assert (alignment(vectors, counts, *rest) < 0.5).all()


def test_a_projector_learns_a_planted_problem():
    generator = torch.Generator().manual_seed(0)
    table, sounds = torch.randn(12, 32, generator=generator) * 0.1, torch.randn(13, 20, generator=generator)
    targets = [torch.randint(12, (4,), generator=generator).tolist() for _ in range(48)]
    # Each token sounds for two frames, with silence (the last sound) before it and at the end.
    frames = [[12] + [sound for token in tokens for sound in (token, token, 12)] for tokens in targets]
    heard = torch.cat([sounds[clip] for clip in frames])
    heard = heard + 0.05 * torch.randn(heard.shape, generator=generator)
    counts, lengths = torch.full((48,), 13), torch.full((48,), 4)
    tokens = torch.tensor(targets).flatten()
    torch.manual_seed(0)
    projector = nn.Sequential(nn.Linear(20, 64), nn.GELU(), nn.Linear(64, 32))
    alignment = CtcAlignment(table, vocabulary_of(targets))
    optimizer = torch.optim.AdamW([*projector.parameters(), *alignment.parameters()], lr=1e-2)
    for _ in range(80):
        loss = alignment(projector(heard), counts, tokens, lengths).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert greedy(alignment, projector(heard), counts) == targets


# --- Vocabulary -----------------------------------------------------------------------------------


def test_the_vocabulary_is_what_occurs():
    assert vocabulary_of([[5, 2, 5], [], [7, 2]]) == [2, 5, 7]
    assert vocabulary_of(tokens for tokens in ([3], [1])) == [1, 3]
    assert vocabulary_of([]) == []


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        ([], "empty"),
        ([5, 2], "ascending"),
        ([2, 2], "each token once"),
        ([2, 12], "within the table's 12 rows"),
        ([-1, 2], "within"),
    ],
)
def test_a_wrong_vocabulary_is_refused(vocabulary, message):
    with pytest.raises(ValueError, match=message):
        CtcAlignment(TABLE, vocabulary)


def test_only_what_is_learned_is_saved_and_moves_along():
    alignment = make()
    assert set(alignment.state_dict()) == {"blank", "blank_bias", "log_temperature"}
    assert {name for name, _ in alignment.named_buffers()} == {"rows", "ids", "classes"}
    assert all(parameter.dtype == torch.float32 for parameter in alignment.parameters())
