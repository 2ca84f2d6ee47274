"""The NLL term divided by the padded length of the micro-batch."""

from sipo_pl.data.loader import PairBatch


def padded_lengths(batch: PairBatch) -> list[int]:
    """Return the tokens of the longest row of the micro-batch, prompt included, once for each pair, (P,)."""
    return [batch.longest] * len(batch.pair_ids)
