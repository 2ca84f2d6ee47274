"""Which rows the released code pairs: equal prompts that follow each other within one batch of one process."""

from collections.abc import Sequence


def adjacent_runs(prompts: Sequence[str], map_batch: int, map_shards: int = 1) -> list[int]:
    """Return the number of the run that each row belongs to; only rows of one run are paired.

    Args:
        prompts: prompt, or its id, of each row, in file order.
        map_batch: rows of a map batch.
        map_shards: processes over which the rows are spread, in consecutive pieces that differ by one row at most.
    """
    borders = set(_batch_borders(len(prompts), map_batch, map_shards))
    runs: list[int] = []
    for index, prompt in enumerate(prompts):
        begins = index in borders or prompt != prompts[index - 1]
        runs.append((runs[-1] if runs else -1) + begins)
    return runs


def _batch_borders(count: int, batch: int, shards: int) -> list[int]:
    shards = max(1, min(shards, count))
    size, longer = divmod(count, shards)
    borders: list[int] = []
    start = 0
    for shard in range(shards):
        end = start + size + (shard < longer)
        borders += range(start, end, batch)
        start = end
    return borders
