from __future__ import annotations

from typing import get_args

import pytest

from shoal.errors import PlanError
from shoal.healing.cuts import Cut, cuts_of
from shoal.healing.settings import TargetName
from shoal.healing.targets import LAST, TARGETS
from tiny_speech import plan


def test_a_block_in_the_middle_has_a_layer_on_either_side():
    assert cuts_of(plan(2, 3, depth=6)) == [Cut(2, 4, before=1, receiver=2)]


def test_scattered_layers_are_several_cuts_in_the_numbering_of_the_pruned_model():
    assert cuts_of(plan(1, 3, 4, depth=7)) == [
        Cut(1, 2, before=0, receiver=1),
        Cut(3, 5, before=1, receiver=2),
    ]


def test_at_the_ends_a_neighbour_is_missing():
    assert cuts_of(plan(0, 5, depth=6)) == [Cut(0, 1, None, 0), Cut(5, 6, before=3, receiver=None)]
    assert cuts_of(plan(depth=6)) == []


def test_every_missing_layer_is_in_one_cut():
    layers = [0, 1, 4, 6, 7]
    assert [layer for cut in cuts_of(plan(*layers, depth=9)) for layer in cut.layers] == layers


def test_parts_of_layers_leave_no_cut():
    with pytest.raises(PlanError, match="only the mlp"):
        cuts_of(plan(1).model_copy(update={"part": "mlp"}))


def test_every_target_has_a_title_and_is_a_choice_of_the_command():
    assert list(get_args(TargetName)) == list(TARGETS)
    assert all(target.title for target in TARGETS.values())
    assert f"last {LAST} layers" in TARGETS["head"].title
