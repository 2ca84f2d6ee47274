"""The metrics of fronts as torchmetrics classes: rewards stream in, batch by batch and rank by rank.

The states are sums and counts per weight, so that they reduce exactly over devices and take no memory per row.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from sipo_pl.metrics.front import pareto_front
from sipo_pl.metrics.hypervolume import hypervolume
from sipo_pl.metrics.spread import spread
from sipo_pl.metrics.steering import inner_product, kendall_tau
from sipo_pl.metrics.union import igd_plus, union_front, union_share


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

    def _means(self) -> NDArray[np.float64]:
        """Return the means of the points that have rows, (points with rows, objectives)."""
        return (self.sums.double() / self.counts.unsqueeze(1))[self._seen()].cpu().numpy()

    def _number(self, value: float) -> Tensor:
        return torch.tensor(value, device=self.sums.device)


class ParetoFront(PointMeans):
    """Which points' mean rewards are non-dominated, bool, (points,); a point without rows is not on the front."""

    def compute(self) -> Tensor:
        front, seen = torch.zeros_like(self.counts, dtype=torch.bool), self._seen()
        front[seen] = torch.from_numpy(pareto_front(self._means())).to(front.device)
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
        return self._number(hypervolume(self._means(), self.reference, self.scale))


class Spread(PointMeans):
    """Spread of the points' mean rewards, float32 scalar; at least one point has rows when it is computed.

    Args:
        points: number of points of the front
        scale: unit of each objective
    """

    def __init__(self, points: int, scale: Sequence[float]) -> None:
        super().__init__(points, len(scale))
        self.scale = list(scale)

    def compute(self) -> Tensor:
        return self._number(spread(self._means(), self.scale))


class SteeringMetric(PointMeans):
    """A metric of the points' mean rewards against their weights; points without rows have no part.

    Args:
        weights: weights of each point, (points, objectives)
        scale: unit of each objective
    """

    def __init__(self, weights: Sequence[Sequence[float]], scale: Sequence[float]) -> None:
        super().__init__(len(weights), len(scale))
        self.weights, self.scale = np.asarray(weights, dtype=np.float64), np.asarray(scale, dtype=np.float64)

    def _seen_weights(self) -> NDArray[np.float64]:
        found: NDArray[np.float64] = self.weights[self._seen().cpu().numpy()]
        return found


class InnerProduct(SteeringMetric):
    """MIP, the mean inner product of weights and scaled mean rewards, float32 scalar."""

    def compute(self) -> Tensor:
        return self._number(inner_product(self._means() / self.scale, self._seen_weights()))


class KendallTau(SteeringMetric):
    """Kendall's tau-b between weight and reward, averaged over objectives, float32 scalar; see `kendall_tau`."""

    def compute(self) -> Tensor:
        return self._number(kendall_tau(self._means(), self._seen_weights()))


class UnionMetric(PointMeans):
    """A metric of the points' mean rewards against the front of their union with other methods' points.

    Args:
        points: number of points of the front
        others: mean rewards of the other methods, (points, objectives)
        scale: unit of each objective
    """

    def __init__(self, points: int, others: Sequence[Sequence[float]], scale: Sequence[float]) -> None:
        super().__init__(points, len(scale))
        self.others, self.scale = np.asarray(others, dtype=np.float64).reshape(-1, len(scale)), list(scale)

    def _union(self) -> NDArray[np.float64]:
        return union_front([self._means(), self.others])


class IGDPlus(UnionMetric):
    """IGD+ against the union's front, float32 scalar, smaller is better."""

    higher_is_better = False

    def compute(self) -> Tensor:
        return self._number(igd_plus(self._means(), self._union(), self.scale))


class UnionShare(UnionMetric):
    """Share of the union's front that is made of these points, float32 scalar."""

    def compute(self) -> Tensor:
        return self._number(union_share(self._means(), self._union()))
