"""What `sipo_pl.interop.deepspeed` takes for granted of DeepSpeed."""

import inspect

import pytest
import torch
from torch.nn import Parameter

from sipo_pl.interop.deepspeed import is_partitioned


def test_a_plain_weight_is_whole() -> None:
    assert not is_partitioned(Parameter(torch.zeros(2)))


def test_names_of_zero_3_are_there() -> None:
    partition = pytest.importorskip("deepspeed.runtime.zero.partition_parameters")
    offload = pytest.importorskip("deepspeed.runtime.zero.parameter_offload")
    coordinator = pytest.importorskip("deepspeed.runtime.zero.partitioned_param_coordinator")
    stage3 = pytest.importorskip("deepspeed.runtime.zero.stage3")

    assert "param.ds_id" in inspect.getsource(partition)
    assert "self.parameter_offload" in inspect.getsource(stage3)
    assert callable(offload.DeepSpeedZeRoOffload.get_param_coordinator)
    assert callable(coordinator.PartitionedParameterCoordinator.reset_step)
