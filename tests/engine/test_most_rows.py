"""How many rows fit, counted by hand."""

from sipo_pl.engine.memory_budget import MOST_ROWS, most_rows

A, B, C = (1,) * 10, (2,) * 10, (3,) * 10


def test_prompts_that_are_shared_are_counted_once() -> None:
    # a row holds 5 tokens; one prompt of 10 tokens serves all of them
    assert most_rows([A] * 100, 5, token_bytes=2, row_bytes=0, free=10 * 2 + 7 * 5 * 2) == 7
    assert most_rows([A] * 100, 5, token_bytes=2, row_bytes=1, free=10 * 2 + 7 * 11) == 7


def test_uneven_prompts_are_counted_where_they_are_densest() -> None:
    # many rows of A, then prompts of one row each: a window over B, C has two prompts, so all three are held
    rows = [A] * 50 + [B, C]
    assert most_rows(rows, 5, token_bytes=1, row_bytes=0, free=1 * 5 + 2 * 10) == 1
    assert most_rows(rows, 5, token_bytes=1, row_bytes=0, free=2 * 5 + 3 * 10 - 1) == 1
    assert most_rows(rows, 5, token_bytes=1, row_bytes=0, free=2 * 5 + 3 * 10) == 2


def test_one_row_is_always_tried_and_never_more_than_there_are() -> None:
    assert most_rows([A, A], 5, token_bytes=1, row_bytes=0, free=0) == 1
    assert most_rows([A, A, A], 5, token_bytes=1, row_bytes=0, free=10**9) == 3
    assert most_rows([A] * 1000, 5, token_bytes=1, row_bytes=0, free=10**9) == MOST_ROWS
