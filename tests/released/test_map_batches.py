import pytest

from sipo_pl.released.map_batches import adjacent_runs


@pytest.mark.parametrize(
    ("prompts", "batch", "shards", "runs"),
    [
        ("aabba", 1000, 1, [0, 0, 1, 1, 2]),  # equal prompts apart are not joined
        ("aaaa", 3, 1, [0, 0, 0, 1]),
        ("aaaaa", 1000, 2, [0, 0, 0, 1, 1]),  # the first shard has the odd row
        ("aaaaa", 2, 2, [0, 0, 1, 2, 2]),
        ("ab", 1000, 8, [0, 1]),  # more processes than rows
        ("", 1000, 4, []),
    ],
)
def test_runs_end_where_the_prompt_the_batch_or_the_shard_does(
    prompts: str, batch: int, shards: int, runs: list[int]
) -> None:
    assert adjacent_runs(list(prompts), batch, shards) == runs
