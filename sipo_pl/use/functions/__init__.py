"""The method as functions of folders, texts and plain numbers, for use from Python (docs/fidelity.md).

They are thin: what computes here is what the stages compute with.
"""

from sipo_pl.use.functions.decisions import select_sample, take_rewrite
from sipo_pl.use.functions.losses import PairLoss, pair_loss
from sipo_pl.use.functions.models import Decoded, Scored, decode, implicit_rewards, interpolate, next_token_logits
from sipo_pl.use.functions.tokens import Labelled, TextPair, realignment_pairs, tokenize, tokenize_pair

__all__ = [
    "Decoded",
    "Labelled",
    "PairLoss",
    "Scored",
    "TextPair",
    "decode",
    "implicit_rewards",
    "interpolate",
    "next_token_logits",
    "pair_loss",
    "realignment_pairs",
    "select_sample",
    "take_rewrite",
    "tokenize",
    "tokenize_pair",
]
