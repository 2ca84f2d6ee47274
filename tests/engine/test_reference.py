from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sipo_pl.data.loader import row_key
from sipo_pl.engine.logprobs.reference_cache import ReferenceCache, reference_logps
from sipo_pl.engine.logprobs.response_logprobs import response_logps
from sipo_pl.engine.lora.adapters import read_adapter
from sipo_pl.engine.lora.stack import LoRAStack
from sipo_pl.engine.models.loading import load_base
from sipo_pl.text.templates import Encoded
from sipo_pl.text.token_batch import collate

ROWS = [Encoded([1, *range(10, 10 + n), 2], 3) for n in (4, 9, 2, 6, 6, 3)]
IDENTITY = {"base": "abc", "dtype": "float32", "adapter": None}


@pytest.fixture
def stack(lively_model: Path) -> LoRAStack:
    stack = LoRAStack(load_base(str(lively_model), "float32"), ["q_proj", "v_proj"])
    stack.train_ranks(4, 8.0, seed=0)
    for layer in stack.layers.values():
        assert layer.lora_B is not None
        layer.lora_B.data.fill_(0.3)  # a policy far from its reference
    return stack


def test_cached_values_are_those_of_the_reference(tmp_path: Path, stack: LoRAStack, lively_model: Path) -> None:
    cache, done = ReferenceCache(tmp_path, IDENTITY), []
    reference_logps(cache, stack, ROWS, batch_rows=2, on_rows=done.append)
    assert sum(done) == len({row_key(row) for row in ROWS}) == 5
    found = ReferenceCache(tmp_path, IDENTITY).lookup(ROWS)  # as another process finds them
    base = load_base(str(lively_model), "float32")
    with torch.no_grad():
        for row in ROWS:
            assert found[row_key(row)] == pytest.approx(response_logps(base, collate([row])).item(), rel=1e-5)


def test_a_frozen_adapter_is_part_of_the_reference(
    tmp_path: Path, stack: LoRAStack, lively_model: Path, adapter_folders: list[Path]
) -> None:
    first = read_adapter(adapter_folders[0]).factors
    stack.stack([first])
    cache = ReferenceCache(tmp_path, IDENTITY)
    reference_logps(cache, stack, ROWS[:1], batch_rows=2)
    alone = LoRAStack(load_base(str(lively_model), "float32"), sorted(first))
    alone.stack([{name: first[name] for name in stack.layers}])
    with torch.no_grad():
        expected = response_logps(alone.model, collate(ROWS[:1])).item()
    assert cache.lookup(ROWS)[row_key(ROWS[0])] == pytest.approx(expected, rel=1e-5)


def test_nothing_is_computed_twice(tmp_path: Path, stack: LoRAStack) -> None:
    done: list[int] = []
    for rows in (ROWS[:2], ROWS, ROWS):
        reference_logps(ReferenceCache(tmp_path, IDENTITY), stack, rows, batch_rows=2, on_rows=done.append)
    assert sum(done) == 5


def test_another_reference_finds_nothing(tmp_path: Path, stack: LoRAStack) -> None:
    reference_logps(ReferenceCache(tmp_path, IDENTITY), stack, ROWS, batch_rows=4)
    for change in ({"base": "abd"}, {"dtype": "bfloat16"}, {"adapter": "x"}):
        assert ReferenceCache(tmp_path, {**IDENTITY, **change}).lookup(ROWS) == {}


def test_the_border_between_prompt_and_response_is_part_of_a_row(tmp_path: Path) -> None:
    cache = ReferenceCache(tmp_path, IDENTITY)
    row, moved = Encoded([1, 2, 3], 1), Encoded([1, 2, 3], 2)
    cache.store([row], [-1.5])
    assert cache.lookup([row, moved, Encoded([1, 2], 1)]) == {row_key(row): -1.5}


def test_a_kill_costs_the_last_batches_only(tmp_path: Path, stack: LoRAStack) -> None:
    rows = [Encoded([1, 9, 30 + n, 2], 2) for n in range(20)]
    cache = ReferenceCache(tmp_path, IDENTITY)

    def stop(count: int, done: list[int] = []) -> None:  # noqa: B006 (one count over all calls)
        done.append(count)
        if len(done) == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reference_logps(cache, stack, rows, batch_rows=1, on_rows=stop)
    assert len(ReferenceCache(tmp_path, IDENTITY).lookup(rows)) == 8


def digit(text: str) -> str:
    return text.replace("-1.5", "-2.5")


def cut(text: str) -> str:
    return text[:-9]


@pytest.mark.parametrize("harm", [digit, cut, lambda text: "", lambda text: text.replace("row", "rwo", 1)])
def test_a_damaged_file_is_said_removed_and_computed_anew(
    tmp_path: Path, logged: pytest.LogCaptureFixture, harm: Callable[[str], str]
) -> None:
    cache = ReferenceCache(tmp_path, IDENTITY)
    cache.store(ROWS[:1], [-1.5])
    cache.store(ROWS[1:2], [-0.5])
    (shard,) = (path for path in cache.folder.iterdir() if "-1.5" in path.read_text())
    shard.write_text(harm(shard.read_text()))
    again = ReferenceCache(tmp_path, IDENTITY)
    assert again.lookup(ROWS) == {row_key(ROWS[1]): -0.5}
    assert not shard.exists()
    assert str(shard) in logged.text
    assert "computed anew" in logged.text
    again.store(ROWS[:1], [-1.5])
    assert again.lookup(ROWS[:1]) == {row_key(ROWS[0]): -1.5}


def test_what_an_older_version_computed_is_taken_over(tmp_path: Path) -> None:
    ReferenceCache(tmp_path, IDENTITY).store(ROWS[:1], [-1.5])
    new = {**IDENTITY, "base": "abc+d"}
    assert ReferenceCache(tmp_path, new, IDENTITY).lookup(ROWS) == {row_key(ROWS[0]): -1.5}
    assert ReferenceCache(tmp_path, new).lookup(ROWS) == {}
