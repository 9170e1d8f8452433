"""Pre-alignment of a projector: CTC against the LLM's own input embeddings.

What the projector makes of a clip is read as a sequence of classes, one at each audio position: a token, or blank. The
score of a token is the dot product of the audio vector with the token's input embedding, so the loss pulls audio
vectors towards the embeddings of the words that are said::

    vector (d,)     ─ RMS-normalised ─► x
    embedding (d,)  ─ RMS-normalised ─► e          score of a token:  x·e / temperature
                                                   score of blank:    x·blank / temperature + blank bias

The loss is that of Graves et al. 2006 ("Connectionist temporal classification", ICML): minus the log-probability of all
ways to spread the clip's tokens over its positions, in order, with blanks between them where one likes, and with at
least one between equal neighbours. Only the tokens that occur in the training targets are classes; all others could
only lose.

Blank starts as the zero vector with a bias of log V', as likely as all V' tokens of score 0 together. Without the bias
the first dozens of steps go into learning blank.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BLANK = 0
"""Class of blank; class 1 + i is the i-th token of the vocabulary."""
INITIAL_TEMPERATURE = 1.0
"""The temperature at the start, in units of √d, the spread of the dot product of two unrelated vectors."""
_EPS = 1e-8
"""Added to the mean square; it only matters to vectors of a root mean square below about 1e-4."""


def vocabulary_of(targets: Iterable[Sequence[int]]) -> list[int]:
    """The token ids that occur in `targets`, ascending, each once."""
    return sorted({int(token) for target in targets for token in target})


class CtcAlignment(nn.Module):
    """CTC loss of audio vectors against token embeddings, with its own temperature and blank.

    Memory: a batch of N positions takes about four tensors of N × (V' + 1) float32 for the loss and its gradient; with
    20,000 tokens and 6,000 positions that is 1.9 GB. So restrict the vocabulary and keep batches moderate.

    All is computed in float32, whatever the vectors are and also under autocast (in float64 after `.double()`).

    Args:
        table: (V, d) input embeddings, as `inputs_embeds` would hold them: scaled, if the model scales them.
        vocabulary: the V' token ids that can be said, ascending, each once (see `vocabulary_of`).

    Raises:
        ValueError: the vocabulary is empty, not ascending, or not within the table.
    """

    rows: Tensor
    """(V', d) float32, the normalised embeddings of the vocabulary; not saved."""
    ids: Tensor
    """(V',) int64, the vocabulary; not saved."""
    classes: Tensor
    """(V,) int64, the class of each token, -1 outside the vocabulary; not saved."""

    def __init__(self, table: Tensor, vocabulary: Sequence[int]) -> None:
        super().__init__()
        _check_vocabulary(vocabulary, len(table))
        ids = torch.tensor(vocabulary, dtype=torch.int64, device=table.device)
        classes = torch.full((len(table),), -1, dtype=torch.int64, device=table.device)
        classes[ids] = torch.arange(1, len(ids) + 1, device=table.device)
        rows = _normalised(table.detach()[ids].float())
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("ids", ids, persistent=False)
        self.register_buffer("classes", classes, persistent=False)
        size = rows.shape[1]
        start = math.log(INITIAL_TEMPERATURE * math.sqrt(size))
        self.log_temperature = nn.Parameter(torch.tensor(start, device=table.device))
        self.blank = nn.Parameter(torch.zeros(size, device=table.device))
        self.blank_bias = nn.Parameter(torch.tensor(math.log(len(ids)), device=table.device))

    def logits(self, vectors: Tensor) -> Tensor:
        """Scores of the classes at each position.

        Args:
            vectors: (N, d), of any floating type and any scale.

        Returns:
            (N, V' + 1) float32, blank first.
        """
        with torch.autocast(vectors.device.type, enabled=False):
            dtype = torch.promote_types(self.rows.dtype, torch.float32)
            vectors = _normalised(vectors.to(dtype))
            scores = vectors @ torch.cat([self.blank[None], self.rows]).to(dtype).T
            bias = F.pad(self.blank_bias[None], (0, len(self.rows)))
            return torch.addcmul(bias.to(dtype), scores, torch.exp(-self.log_temperature).to(dtype))

    def forward(self, vectors: Tensor, counts: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
        """The loss of each clip.

        All may lie on any device; the result is where `vectors` are.

        Args:
            vectors: (N, d) positions of all clips, one clip after the other.
            counts: (B,) integer, positions of each clip.
            tokens: (M,) integer, target token ids of all clips, one clip after the other.
            lengths: (B,) integer, tokens of each clip.

        Returns:
            (B,) float32, nats a clip; 0 without gradient where a clip cannot be aligned, see `alignable`.

        Raises:
            ValueError: counts or lengths do not add up.
        """
        if int(counts.sum()) != len(vectors):
            raise ValueError(f"{len(vectors)} vectors, but counts add up to {int(counts.sum())}")
        device = self.rows.device
        vectors, counts, tokens, lengths = (tensor.to(device) for tensor in (vectors, counts, tokens, lengths))
        fits = self.alignable(counts, tokens, lengths)
        # Clips that do not fit go no further, so neither -1 classes nor infinities reach the kernels.
        log_probs = self.logits(vectors[_spread(fits, counts, len(vectors))]).log_softmax(-1)
        targets = self._classes(tokens)[_spread(fits, lengths, len(tokens))]
        losses = _losses(log_probs, counts[fits], targets, lengths[fits])
        return log_probs.new_zeros(len(counts)).index_put((fits,), losses)

    def alignable(self, counts: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Which clips have a token, only tokens of the vocabulary, and enough positions: see `forward`.

        A clip needs one position for each token, and one for a blank between each two equal neighbours.

        Returns:
            (B,) bool.

        Raises:
            ValueError: lengths do not add up.
        """
        if int(lengths.sum()) != len(tokens):
            raise ValueError(f"{len(tokens)} tokens, but lengths add up to {int(lengths.sum())}")
        device = self.rows.device
        counts, tokens, lengths = counts.to(device), tokens.to(device), lengths.to(device)
        clips = _spread(torch.arange(len(lengths), device=device), lengths, len(tokens))
        repeated = (tokens[1:] == tokens[:-1]) & (clips[1:] == clips[:-1])
        needed = lengths.long().index_add(0, clips[1:], repeated.long())
        strange = torch.zeros_like(needed).index_add(0, clips, (self._classes(tokens) < 0).long())
        return (lengths > 0) & (strange == 0) & (counts >= needed)

    def _classes(self, tokens: Tensor) -> Tensor:
        """(M,) int64, the class of each token; -1 outside the vocabulary, also beyond the table."""
        inside = (tokens >= 0) & (tokens < len(self.classes))
        return self.classes[torch.where(inside, tokens, 0).long()].masked_fill(~inside, -1)


def _losses(log_probs: Tensor, counts: Tensor, targets: Tensor, lengths: Tensor) -> Tensor:
    """CTC losses (B,) in nats of clips that can be aligned.

    Args:
        log_probs: (N, V' + 1) of all clips, one after the other.
        counts: (B,) positions of each clip.
        targets: (M,) int64 classes of all clips, one after the other.
        lengths: (B,) classes of each clip.
    """
    if not len(counts):
        return log_probs.sum(-1)
    clips = _spread(torch.arange(len(counts), device=counts.device), counts, len(log_probs))
    starts = counts.cumsum(0) - counts
    times = torch.arange(len(log_probs), device=counts.device) - starts[clips]
    empty = log_probs.new_zeros(int(counts.max()), len(counts), log_probs.shape[1])
    padded = empty.index_put((times, clips), log_probs)
    return F.ctc_loss(padded, targets, counts.long(), lengths.long(), blank=BLANK, reduction="none", zero_infinity=True)


def _spread(values: Tensor, counts: Tensor, total: int) -> Tensor:
    """(total,): the i-th of `values` (B,) `counts[i]` times."""
    return values.repeat_interleave(counts.long(), output_size=total)


def _normalised(vectors: Tensor) -> Tensor:
    """(N, d), each divided by its root mean square."""
    return F.rms_norm(vectors, vectors.shape[-1:], eps=_EPS)


def _check_vocabulary(vocabulary: Sequence[int], size: int) -> None:
    if not len(vocabulary):
        raise ValueError("the vocabulary is empty")
    if any(left >= right for left, right in pairwise(vocabulary)):
        raise ValueError("the vocabulary must be ascending, each token once")
    if vocabulary[0] < 0 or vocabulary[-1] >= size:
        raise ValueError(f"the vocabulary must lie within the table's {size} rows")
