import pytest

from sipo_pl.data.rows import PairRow
from sipo_pl.data.splits import (
    Split,
    draw_prompts,
    draw_validation,
    limit_train,
    limit_validation,
    unique_prompts,
    without_prompts,
)
from sipo_pl.messages.errors import UserError

NAMES = ["x", "y"]
CONFLICT, AGREE, TIE = (0, 1), (0, 0), (-1, 1)


def pairs(*kinds: tuple[int, int]) -> list[PairRow]:
    return [
        {
            "pair_id": f"p{index}/0-1",
            "prompt_id": f"p{index}",
            "prompt": f"prompt {index}",
            "response_0": "a",
            "response_1": "b",
            "preferred": dict(zip(NAMES, kind, strict=True)),  # type: ignore[typeddict-item]
        }
        for index, kind in enumerate(kinds)
    ]


def numbers(rows: list[PairRow]) -> list[int]:
    return [int(row["prompt_id"][1:]) for row in rows]


@pytest.mark.parametrize(
    ("kinds", "limit", "kept"),
    [
        ([AGREE, AGREE, CONFLICT, TIE, CONFLICT, CONFLICT], 4, [0, 1, 2, 4]),
        ([AGREE, AGREE, CONFLICT, TIE, CONFLICT, CONFLICT], 3, [0, 2, 4]),
        ([AGREE, CONFLICT, AGREE, AGREE, TIE], 4, [0, 1, 2, 3]),  # too few conflict
        ([CONFLICT, CONFLICT, CONFLICT, CONFLICT, AGREE], 4, [0, 1, 2, 4]),  # too few others
        ([CONFLICT, AGREE], 4, [0, 1]),
        ([AGREE, CONFLICT], 1, [1]),
    ],
)
def test_half_of_a_limited_train_split_conflicts(kinds: list[tuple[int, int]], limit: int, kept: list[int]) -> None:
    assert numbers(limit_train(pairs(*kinds), [kind == CONFLICT for kind in kinds], limit)) == kept


def test_a_limited_validation_split_takes_pairs_without_ties_first() -> None:
    rows = pairs(TIE, TIE, AGREE, CONFLICT, AGREE)
    assert numbers(limit_validation(rows, NAMES, 2)) == [2, 3]
    assert numbers(limit_validation(rows, NAMES, 4)) == [0, 2, 3, 4]
    assert numbers(limit_validation(rows, NAMES, 9)) == [0, 1, 2, 3, 4]


def test_the_draw_depends_on_the_seed_alone_and_stays_in_file_order() -> None:
    prompts = unique_prompts(pairs(*[AGREE] * 50))
    drawn = [row["prompt_id"] for row in draw_prompts(prompts, 10, seed=1)]
    assert drawn == [row["prompt_id"] for row in draw_prompts(prompts, 10, seed=1)]
    assert drawn != [row["prompt_id"] for row in draw_prompts(prompts, 10, seed=2)]
    assert len(set(drawn)) == 10
    assert drawn == sorted(drawn, key=lambda name: int(name[1:]))


@pytest.mark.parametrize(("count", "share", "seed"), [(10, 0.1, 0), (52, 0.1, 0), (7, 0.3, 3)])
def test_a_drawn_validation_is_that_of_datasets(count: int, share: float, seed: int) -> None:
    from datasets import Dataset

    split = Dataset.from_dict({"row": list(range(count))}).train_test_split(share, seed=seed)
    train, validation = draw_validation(range(count), count, share, seed)
    assert (train, validation) == (split["train"]["row"][:], split["test"]["row"][:])


def test_dropped_rows_keep_their_place_in_a_draw() -> None:
    train, validation = draw_validation(range(10), 10, 0.25, 0)
    slots = [slot for slot in range(10) if slot not in (train[0], validation[0])]
    fewer = draw_validation(slots, 10, 0.25, 0)
    assert [[slots[index] for index in part] for part in fewer] == [train[1:], validation[1:]]
    assert len(validation) == 3  # 10 * 0.25 = 2.5, rounded up


def test_prompts_come_once_and_leave_with_all_their_pairs() -> None:
    rows = [*pairs(AGREE, TIE), *pairs(CONFLICT)]
    assert [row["prompt"] for row in unique_prompts(rows)] == ["prompt 0", "prompt 1"]
    assert numbers(without_prompts(rows, {"p0"})) == [1]


def test_a_split_left_empty_names_what_took_how_many() -> None:
    split = Split("train", pairs(TIE, AGREE, AGREE))
    assert split.keep(split.rows[1:], "pairs with a tie") == 1
    split.check()
    assert split.keep([], "pairs over 9 tokens") == 2
    with pytest.raises(UserError, match=r"data\.train: .* dropped: 1 pairs with a tie, 2 pairs over 9 tokens"):
        split.check()


def test_a_filter_that_takes_nothing_is_not_counted() -> None:
    split = Split("train", pairs(TIE))
    split.keep(split.rows, "pairs with a tie")
    assert not split.dropped
