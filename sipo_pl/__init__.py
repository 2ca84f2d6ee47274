"""SIPO, Self-Improvement Towards Pareto Optimality, on PyTorch Lightning (Li et al., arXiv 2502.14354)."""

__version__ = "0.1.0"

from sipo_pl.storage import moved_modules

moved_modules.install()
