"""Internals of DeepSpeed: which weights ZeRO-3 partitions, and what it fetched ahead. No import of it is needed."""

from typing import Any

from torch.nn import Parameter


def is_partitioned(parameter: Parameter) -> bool:
    """Return whether ZeRO-3 keeps a parameter in parts, one on each device."""
    return hasattr(parameter, "ds_id")


def drop_prefetched(engine: Any) -> None:
    """Let a ZeRO-3 engine drop what its last forward gathered ahead for a backward pass that never came."""
    engine.optimizer.parameter_offload.get_param_coordinator().reset_step()
