import numpy as np
import pytest
import torch

from sipo_pl.metrics.front import pareto_front
from sipo_pl.metrics.hypervolume import hypervolume
from sipo_pl.metrics.spread import spread
from sipo_pl.metrics.steering import inner_product, kendall_tau
from sipo_pl.metrics.torch_metrics import (
    Hypervolume,
    IGDPlus,
    InnerProduct,
    KendallTau,
    ParetoFront,
    PointMeans,
    Spread,
    UnionShare,
)
from sipo_pl.metrics.union import igd_plus, union_front, union_share

REWARDS = torch.tensor([[0.0, 4.0], [2.0, 4.0], [3.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
POINTS = torch.tensor([0, 0, 1, 1, 2])
MEANS = torch.tensor([[1.0, 4.0], [2.0, 1.0], [0.0, 0.0]])


def test_batches_add_up_to_the_means() -> None:
    metric = PointMeans(points=3, objectives=2)
    metric.update(REWARDS[:3], POINTS[:3])
    metric.update(REWARDS[3:], POINTS[3:])
    torch.testing.assert_close(metric.compute(), MEANS)


def test_front_and_hypervolume_equal_the_pure_functions() -> None:
    front, volume = ParetoFront(3, 2), Hypervolume(3, reference=[-1.0, -1.0], scale=[1.0, 2.0])
    for metric in (front, volume):
        metric.update(REWARDS, POINTS)
    assert front.compute().tolist() == pareto_front(MEANS.numpy()).tolist() == [True, True, False]
    assert volume.compute().item() == pytest.approx(hypervolume(MEANS.numpy(), [-1.0, -1.0], [1.0, 2.0]))


def test_a_point_without_rows_is_not_on_the_front_and_adds_nothing() -> None:
    front, volume = ParetoFront(3, 2), Hypervolume(3, reference=[0.0, 0.0])
    for metric in (front, volume):
        metric.update(REWARDS[:2], POINTS[:2])
    assert front.compute().tolist() == [True, False, False]
    assert volume.compute().item() == 4.0


def test_two_ranks_reduce_to_one() -> None:
    whole, ranks = PointMeans(3, 2), [PointMeans(3, 2), PointMeans(3, 2)]
    whole.update(REWARDS, POINTS)
    for rank, metric in enumerate(ranks):
        metric.update(REWARDS[rank::2], POINTS[rank::2])
    ranks[0].merge_state(ranks[1])
    torch.testing.assert_close(ranks[0].compute(), whole.compute())


def test_comparison_metrics_equal_the_pure_functions() -> None:
    weights, scale, others = [[0.2, 0.8], [0.8, 0.2], [1.0, 0.0]], [2.0, 0.5], [[1.5, 3.0], [-1.0, -1.0]]
    metrics = {
        "spread": Spread(3, scale),
        "mip": InnerProduct(weights, scale),
        "tau": KendallTau(weights, scale),
        "igd": IGDPlus(3, others, scale),
        "share": UnionShare(3, others, scale),
    }
    for metric in metrics.values():
        metric.update(REWARDS[:2], POINTS[:2])
        metric.update(REWARDS[2:], POINTS[2:])
    means, union = MEANS.numpy(), union_front([MEANS.numpy(), np.array(others)])
    expected = {
        "spread": spread(means, scale),
        "mip": inner_product(means / scale, weights),
        "tau": kendall_tau(means, weights),
        "igd": igd_plus(means, union, scale),
        "share": union_share(means, union),
    }
    assert {name: metric.compute().item() for name, metric in metrics.items()} == pytest.approx(expected)
