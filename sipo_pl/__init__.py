"""SIPO, Self-Improvement Towards Pareto Optimality, on PyTorch Lightning (Li et al., arXiv 2502.14354)."""

from sipo_pl.storage import moved_modules

__version__ = "0.1.0"

moved_modules.install()
