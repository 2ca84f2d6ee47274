"""Divergences that hold a policy to its reference, one a file; each ties loss, filter and fusion together."""

from sipo_pl.method.divergences.alpha import Alpha
from sipo_pl.method.divergences.base import LARGEST_EXPONENT, Divergence
from sipo_pl.method.divergences.forward_kl import ForwardKL
from sipo_pl.method.divergences.jensen_shannon import JensenShannon
from sipo_pl.method.divergences.reverse_kl import ReverseKL

__all__ = ["LARGEST_EXPONENT", "Alpha", "Divergence", "ForwardKL", "JensenShannon", "ReverseKL"]
