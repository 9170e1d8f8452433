"""One row of a batch while it is put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from shoal.models.batch import Kind


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One row of a batch, unpadded: token ids (n,) and what each of them is (n,)."""

    ids: Tensor
    kinds: Tensor

    def then(self, ids: Sequence[int], kind: Kind) -> TokenRow:
        """This, and `ids` after it."""
        more = torch.tensor(list(ids), dtype=torch.long)
        return TokenRow(
            torch.cat([self.ids, more]), torch.cat([self.kinds, torch.full_like(more, int(kind))])
        )

    def at(self, place: int, ids: Sequence[int], kind: Kind) -> TokenRow:
        """This, with `ids` before position `place`."""
        before = TokenRow(self.ids[:place], self.kinds[:place]).then(ids, kind)
        return TokenRow(
            torch.cat([before.ids, self.ids[place:]]), torch.cat([before.kinds, self.kinds[place:]])
        )
