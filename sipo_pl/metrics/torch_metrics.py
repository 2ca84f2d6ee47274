"""The metrics of fronts as torchmetrics classes: rewards stream in, batch by batch and rank by rank.

The states are sums and counts per weight, so that they reduce exactly over devices and take no memory per row.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from sipo_pl.metrics.front import pareto_front
from sipo_pl.metrics.hypervolume import hypervolume


class PointMeans(Metric):
    """Mean reward of each objective at each point, (points, objectives); nan where a point has no rows yet.

    Args:
        points: number of points of the front
        objectives: number of objectives
    """

    higher_is_better = True
    full_state_update = False
    sums: Tensor
    counts: Tensor

    def __init__(self, points: int, objectives: int) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(points, objectives), dist_reduce_fx="sum")
        self.add_state("counts", torch.zeros(points, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, rewards: Tensor, points: Tensor) -> None:
        """Add rows.

        Args:
            rewards: larger is better, float, (rows, objectives).
            points: index of each row's point, int64, (rows,).
        """
        self.sums.index_add_(0, points, rewards.to(self.sums.dtype))
        self.counts += torch.bincount(points, minlength=len(self.counts))

    def compute(self) -> Tensor:
        return self.sums / self.counts.unsqueeze(1)

    def _seen(self) -> Tensor:
        return self.counts > 0


class ParetoFront(PointMeans):
    """Which points' mean rewards are non-dominated, bool, (points,); a point without rows is not on the front."""

    def compute(self) -> Tensor:
        front, seen = torch.zeros_like(self.counts, dtype=torch.bool), self._seen()
        front[seen] = torch.from_numpy(pareto_front(super().compute()[seen].cpu().numpy())).to(front.device)
        return front


class Hypervolume(PointMeans):
    """Hypervolume of the points' mean rewards, float32 scalar; points without rows contribute nothing.

    Args:
        points: number of points of the front
        reference: reference point, one number per objective
        scale: unit of each objective; 1 where not given
    """

    def __init__(self, points: int, reference: Sequence[float], scale: Sequence[float] | None = None) -> None:
        super().__init__(points, len(reference))
        self.reference = list(reference)
        self.scale = None if scale is None else list(scale)

    def compute(self) -> Tensor:
        means = super().compute()[self._seen()].cpu().numpy()
        return torch.tensor(hypervolume(means, self.reference, self.scale), device=self.sums.device)
