"""The mask of what chosen and rejected begin with alike."""

from dataclasses import replace

from sipo_pl.data.loader import TrainingPair
from sipo_pl.text.templates import Encoded, common_prefix_length


def mask_common_prefix(pair: TrainingPair) -> TrainingPair:
    """Count what both rows begin with alike to the prompt.

    A first word that both responses share is then learned by neither term of a loss; of equal rows nothing is left.
    """
    length = common_prefix_length(pair.chosen.input_ids, pair.rejected.input_ids)
    chosen, rejected = (Encoded(row.input_ids, length) for row in pair.rows)
    return replace(pair, chosen=chosen, rejected=rejected)
