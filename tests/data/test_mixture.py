from typing import Literal

import pytest

from sipo_pl.data.mixture import mix
from sipo_pl.released.mixture import end_or_all


def names(kind: str, count: int) -> list[str]:
    return [f"{kind}{index}" for index in range(count)]


@pytest.mark.parametrize(
    ("conflicting", "others", "share", "chosen", "rest"),
    [
        (970, 1200, 0.6, 582, 388),  # 970 * 0.6 = 582
        (1500, 971, 0.6, 582, 389),  # 971 * 0.6 = 582.6 is cut, and the others fill up
        (971, 971, 0.3, 291, 680),  # 291.3
        (7, 5, 0.0, 0, 5),
        (7, 5, 1.0, 5, 0),
        (0, 5, 0.6, 0, 0),
    ],
)
def test_sizes(conflicting: int, others: int, share: float, chosen: int, rest: int) -> None:
    mixed = mix(names("c", conflicting), names("m", others), share)
    assert mixed.conflicting == names("c", chosen)
    assert mixed.others == names("m", rest)
    assert sorted(mixed.merged) == sorted(mixed.conflicting + mixed.others)


@pytest.mark.parametrize(
    ("take", "conflicting", "others"),
    [("first", ["c0", "c1"], ["m0"]), ("last", ["c3", "c4"], ["m2"])],
)
def test_either_end_is_taken_in_its_order(
    take: Literal["first", "last"], conflicting: list[str], others: list[str]
) -> None:
    mixed = mix(names("c", 5), names("m", 3), 0.7, take)  # 3 * 0.7 = 2.1
    assert (mixed.conflicting, mixed.others) == (conflicting, others)


def test_the_shuffle_is_that_of_the_seed() -> None:
    # random.seed(42); random.shuffle([0, 1, 2, 3, 4]) gives 3, 1, 2, 4, 0
    assert mix(names("c", 5), names("m", 5), 0.6).merged == ["m0", "c1", "c2", "m1", "c0"]
    assert mix(names("c", 50), names("m", 50), 0.6, seed=1).merged != mix(names("c", 50), names("m", 50), 0.6).merged


def test_the_last_none_of_a_part_is_nothing_unless_the_accident_is_asked_for() -> None:
    assert mix(names("c", 3), names("m", 2), 0.0, "last").conflicting == []
    assert mix(names("c", 3), names("m", 2), 0.0, "last", taken=end_or_all).conflicting == ["c0", "c1", "c2"]
    assert mix(names("c", 3), names("m", 2), 1.0, "last", taken=end_or_all).others == ["m0", "m1"]
    assert mix(names("c", 3), names("m", 2), 0.0, "first", taken=end_or_all).conflicting == []
