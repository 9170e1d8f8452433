"""Work ahead in a thread: the same items, the same errors, and no thread left behind."""

from __future__ import annotations

import threading

import pytest

from shoal.prefetch import prefetch


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("shoal-prefetch")]


def test_gives_the_same_items_in_order_from_another_thread():
    made_in = set()

    def items():
        for number in range(20):
            made_in.add(threading.current_thread().name)
            yield number

    assert list(prefetch(items(), depth=2)) == list(range(20))
    assert made_in == {"shoal-prefetch_0"}
    assert threads() == []


def test_runs_ahead_only_so_far():
    made = []
    reached = threading.Event()

    def items():
        for number in range(10):
            made.append(number)
            if number == 3:
                reached.set()
            yield number

    taken = prefetch(items(), depth=2)
    assert next(taken) == 0
    # One was taken, two wait, one more is made and finds no room.
    assert reached.wait(10)
    assert made == [0, 1, 2, 3]
    taken.close()
    assert made == [0, 1, 2, 3]


def test_an_error_comes_where_its_item_would_have_come():
    def items():
        yield 1
        raise KeyError("no more")

    taken = prefetch(items(), depth=3)
    assert next(taken) == 1
    with pytest.raises(KeyError, match="no more"):
        next(taken)
    assert threads() == []


@pytest.mark.parametrize("how", ["close", "error"])
def test_the_thread_ends_and_cleans_up_when_its_items_are_no_longer_wanted(how):
    cleaned = []

    def items():
        try:
            while True:
                yield 0
        finally:
            cleaned.append(threading.current_thread().name)

    def consume():
        for _ in (taken := prefetch(items(), depth=1)):
            if how == "close":
                return taken.close()
            raise ZeroDivisionError
        return None

    if how == "close":
        consume()
    else:
        with pytest.raises(ZeroDivisionError):
            consume()
    assert cleaned == ["shoal-prefetch_0"]
    assert threads() == []


def test_a_depth_below_one_is_refused():
    with pytest.raises(ValueError, match="depth"):
        prefetch([], depth=0)
