"""Levels of segments and the paths of rows through them, on numbers worked by hand."""

import torch

from sipo_pl.engine.decoding.segments import CacheLevel, SegmentPath, rows_of


def level(parents: list[int], offsets: list[int], lengths: list[int], capacity: int = 4) -> CacheLevel:
    return CacheLevel(capacity, torch.tensor(parents), torch.tensor(offsets), torch.tensor(lengths))


HEADER = level([0], [0], [3])
PROMPTS = level([0, 0, 0], [3, 3, 3], [2, 4, 1])
ROWS = level([2, 0, 2, 1], [4, 5, 4, 7], [0, 1, 2, 0])


def test_rows_of_each_segment_in_their_order() -> None:
    assert rows_of(torch.tensor([2, 0, 2, 1]), 4).tolist() == [[1, -1], [3, -1], [0, 2], [-1, -1]]


def test_owners_members_and_positions_along_a_path() -> None:
    path = SegmentPath([HEADER, PROMPTS], ROWS)
    assert [owner.tolist() for owner in path.owners] == [[0, 0, 0, 0], [2, 0, 2, 1]]
    assert [members.tolist() for members in path.members] == [
        [[0, 1, 2, 3]],
        [[1, -1], [3, -1], [0, 2]],
        [[0], [1], [2], [3]],
    ]
    assert path.asks.tolist() == [4, 6, 6, 7]


def test_what_one_new_token_a_row_reads() -> None:
    header, prompts, own = SegmentPath([HEADER, PROMPTS], ROWS).reads
    assert (header.longest, prompts.longest, own.longest) == (3, 4, 3)
    assert header.places.tolist() == [[0, 1, 2]] * 4
    assert not header.hidden.any()
    assert prompts.places[1].tolist() == [3, 4, 5, 6]
    assert prompts.hidden.int().tolist() == [[0, 1, 1, 1], [0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 0, 0]]
    assert prompts.where.tolist() == [4, 0, 5, 2]  # among the members, flattened
    assert own.hidden.int().tolist() == [[0, 1, 1], [0, 0, 1], [0, 0, 0], [0, 1, 1]]  # the new token is seen


def filled(segments: int, capacity: int, first: int) -> CacheLevel:
    """Return a level of full segments whose keys are numbers of their own."""
    made = level([0] * segments, [3] * segments, [capacity] * segments, capacity)
    values = torch.arange(first, first + segments * capacity, dtype=torch.float32)
    made.keys = [values.view(1, segments, 1, capacity, 1)]
    made.values = [-values.view(1, segments, 1, capacity, 1)]
    return made


def test_segments_are_put_into_places_of_a_larger_level() -> None:
    held = CacheLevel.empty(3, torch.zeros(4, dtype=torch.long), torch.zeros(4, dtype=torch.long))
    held.put(torch.tensor([3, 1]), filled(2, 2, first=10))
    assert held.lengths.tolist() == [0, 2, 0, 2]
    assert held.offsets.tolist() == [0, 3, 0, 3]
    assert held.keys[0].flatten(1).tolist() == [[0, 0, 0, 12, 13, 0, 0, 0, 0, 10, 11, 0]]
    held.put(torch.tensor([1]), filled(1, 1, first=50))
    assert held.lengths.tolist() == [0, 1, 0, 2]
    assert held.values[0][0, 1, 0, 0].item() == -50


def test_segments_are_kept_in_any_order_and_more_than_once() -> None:
    one = filled(3, 1, first=5)
    one.select(torch.tensor([2, 0, 2]))
    assert one.segments == 3
    assert one.keys[0].flatten().tolist() == [7, 5, 7]
    assert one.values[0].flatten().tolist() == [-7, -5, -7]
