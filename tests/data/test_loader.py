from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sipo_pl.data.loader import FrozenValues, PairBatch, PairLoader, TrainingPair, collate_pairs, row_key
from sipo_pl.text.templates import Encoded


def pair(index: int) -> TrainingPair:
    return TrainingPair(f"p{index}", Encoded([1, 9, 10 + index, 2], 2), Encoded([1, 9, 100 + index, 11, 2], 2))


def loader(
    count: int, micro: int = 1, accumulate: int = 1, seed: int | None = 0, rank: int = 0, world: int = 1
) -> PairLoader:
    made = PairLoader([pair(index) for index in range(count)], micro, accumulate, seed, rank, world)
    rows = [row for one in made.pairs for row in (one.chosen, one.rejected)]
    made.values = FrozenValues({row_key(row): -float(sum(row.input_ids)) for row in rows})
    return made


def ids(batches: list[PairBatch]) -> list[list[str]]:
    return [batch.pair_ids for batch in batches]


def take(made: PairLoader, count: int) -> list[PairBatch]:
    """Ask for `count` batches and no more, as the trainer does."""
    batches = iter(made)
    return [next(batches) for _ in range(count)]


sizes = given(count=st.integers(1, 23), micro=st.integers(1, 4), accumulate=st.integers(1, 4), world=st.integers(1, 3))


@sizes
def test_an_epoch_holds_every_pair_once_over_all_devices(count: int, micro: int, accumulate: int, world: int) -> None:
    loaders = [loader(count, micro, accumulate, rank=rank, world=world) for rank in range(world)]
    batches = [list(one) for one in loaders]
    seen = Counter(name for rank in batches for batch in rank if not batch.spare for name in batch.pair_ids)
    assert seen == Counter(f"p{index}" for index in range(count))
    assert [len(one) for one in loaders] == [len(rank) for rank in batches]


@sizes
def test_the_micro_batches_of_a_step_say_how_many_pairs_it_has(
    count: int, micro: int, accumulate: int, world: int
) -> None:
    loaders = [loader(count, micro, accumulate, rank=rank, world=world) for rank in range(world)]
    batches = [list(one) for one in loaders]
    size = micro * accumulate
    steps = loaders[0].steps_per_epoch
    assert steps == -(-count // size)
    for step in range(steps):
        each = loaders[0].micro_batches
        windows = [rank[step * each : (step + 1) * each] for rank in batches]
        assert len({len(one) for one in windows}) == 1
        window = [batch for one in windows for batch in one]
        pairs = sum(len(batch.pair_ids) for batch in window if not batch.spare)
        assert {batch.step_pairs for batch in window} == {pairs}
        assert pairs == (size if step < steps - 1 else count - size * (steps - 1))


def test_the_last_step_takes_what_is_left() -> None:
    batches = list(loader(7, micro=2, accumulate=2, seed=None))
    assert ids(batches) == [["p0", "p1"], ["p2", "p3"], ["p4", "p5"], ["p6"]]
    assert [batch.step_pairs for batch in batches] == [4, 4, 3, 3]


def test_a_batch_holds_signs_and_scores_in_the_objectives_order() -> None:
    pairs = [replace(pair(0), signs={"b": -1, "a": 1}), replace(pair(1), signs={"b": 0, "a": 1})]
    rows = [row_key(row) for one in pairs for row in one.rows]
    scores = {key: (float(n), 10.0 * n) for n, key in enumerate(rows)}
    batch = collate_pairs(pairs, FrozenValues(dict.fromkeys(rows, 0.0), ("a", "b"), scores), step_pairs=2)
    assert batch.signs.tolist() == [[1.0, -1.0], [1.0, 0.0]]
    assert batch.scores is not None
    assert batch.scores.tolist() == [[0.0, 0.0], [2.0, 20.0], [1.0, 10.0], [3.0, 30.0]]
    assert collate_pairs(pairs, FrozenValues(dict.fromkeys(rows, 0.0), ("a", "b")), step_pairs=2).scores is None


def test_a_batch_holds_chosen_rows_then_rejected_ones() -> None:
    pairs = [pair(0), pair(1)]
    reference = {
        row_key(row): float(n) for n, row in enumerate([p.chosen for p in pairs] + [p.rejected for p in pairs])
    }
    batch = collate_pairs(pairs, FrozenValues(reference), step_pairs=9)
    assert batch.tokens.input_ids[:, 2].tolist() == [10, 11, 100, 101]
    assert batch.reference_logps.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert batch.reference_logps.dtype == torch.float32
    assert batch.tokens.response_mask.sum(dim=1).tolist() == [2, 2, 3, 3]
    assert batch.step_pairs == 9


# order


def test_the_order_follows_seed_and_epoch_alone() -> None:
    made = loader(20)
    first = ids(list(made))
    assert ids(list(made)) == first
    made.set_epoch(1)
    second = ids(list(made))
    assert second != first
    assert sorted(second) == sorted(first)
    again = loader(20)
    again.set_epoch(1)
    assert ids(list(again)) == second
    assert ids(list(loader(20, seed=1))) != first


def test_without_a_seed_the_order_is_the_files() -> None:
    made = loader(5, seed=None)
    made.set_epoch(3)
    assert ids(list(made)) == [[f"p{index}"] for index in range(5)]


@pytest.mark.parametrize("count", [2, 5])
def test_every_epoch_begins_at_its_beginning_even_if_the_last_was_not_asked_for_its_end(count: int) -> None:
    made = loader(5)
    whole = ids(list(made))
    assert ids(take(made, count)) == whole[:count]
    assert ids(list(made)) == whole


def test_peeking_hands_nothing_out() -> None:
    made = loader(5, micro=2)
    peeked = made.peek()
    assert ids([peeked]) == ids(list(made))[:1]
    assert made.state_dict() == loader(5, micro=2).state_dict()


# resuming


@given(count=st.integers(1, 12), micro=st.integers(1, 3), done=st.integers(0, 12), epoch=st.integers(0, 2))
def test_a_new_process_goes_on_with_exactly_the_rows_that_were_left(
    count: int, micro: int, done: int, epoch: int
) -> None:
    old, new = loader(count, micro), loader(count, micro)
    old.set_epoch(epoch)
    whole = ids(list(old))
    done = min(done, len(old) - 1)
    take(old, done)
    new.load_state_dict(old.state_dict() if done else {"rows": 0})
    new.set_epoch(epoch)
    assert ids(list(new)) == whole[done:]
    assert ids(list(new)) == whole  # the next epoch is whole again
    assert len(new) == len(whole)


def test_a_state_saved_at_the_end_of_an_epoch_begins_the_next() -> None:
    old, new = loader(5, 2), loader(5, 2)
    take(old, 3)
    new.load_state_dict(old.state_dict())
    new.set_epoch(1)
    old.set_epoch(1)
    assert ids(list(new)) == ids(list(old))
    assert len(list(new)) == 3


def test_a_resumed_process_saves_its_own_position() -> None:
    whole = ids(list(loader(9)))
    first, second, third = loader(9), loader(9), loader(9)
    take(first, 3)
    second.load_state_dict(first.state_dict())
    assert ids(take(second, 2)) == whole[3:5]
    third.load_state_dict(second.state_dict())
    assert ids(list(third)) == whole[5:]


# devices


@sizes
def test_steps_have_the_same_rows_on_any_number_of_devices(count: int, micro: int, accumulate: int, world: int) -> None:
    alone = loader(count, micro, accumulate)
    many = [loader(count, micro, accumulate, rank=rank, world=world) for rank in range(world)]

    def steps(made: PairLoader) -> list[set[str]]:
        batches = [set() if batch.spare else set(batch.pair_ids) for batch in made]
        windows = range(0, len(batches), made.micro_batches)
        return [set().union(*batches[start : start + made.micro_batches]) for start in windows]

    assert [set().union(*parts) for parts in zip(*map(steps, many), strict=True)] == steps(alone)


@given(count=st.integers(2, 23), old=st.integers(1, 3), new=st.integers(1, 3), done=st.integers(0, 5))
def test_a_checkpoint_of_some_devices_goes_on_with_others(count: int, old: int, new: int, done: int) -> None:
    size = {"micro": 1, "accumulate": 3}
    whole = loader(count, **size)
    done = min(done, whole.steps_per_epoch - 1)
    first = loader(count, **size, world=old)
    take(first, done * first.micro_batches)
    left: set[str] = set()
    for rank in range(new):
        second = loader(count, **size, rank=rank, world=new)
        second.load_state_dict(first.state_dict())
        left |= {name for batch in second if not batch.spare for name in batch.pair_ids}
    assert left == {name for batch in list(whole)[3 * done :] for name in batch.pair_ids}


def test_steps_may_be_filled_up_with_spare_micro_batches() -> None:
    made = loader(5, accumulate=3, seed=None)
    made.fills_steps = True
    assert [batch.spare for batch in made] == [False] * 5 + [True]
    assert {batch.step_pairs for batch in list(made)[3:]} == {2}
