"""Fits side by side: which stages may run at once, and which of the machine's devices each of them has."""

import os
from collections.abc import Iterable, Sequence

from sipo_pl.messages.errors import UsageError
from sipo_pl.recipe.graph.round import Node

VISIBLE, THREADS = "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"


def next_stage(waiting: Sequence[Node], running: Iterable[Node]) -> int | None:
    """Return the index of the first of the waiting stages that may begin now; None where all must wait.

    Fits overtake and accompany one another where none reads what the other makes. Any other stage waits for all before
    it, and has the devices to itself.

    Args:
        waiting: stages in their order.
        running: those under way.
    """
    ahead = list(running)
    for index, node in enumerate(waiting):
        if ahead and any(one.verb != "fit" for one in (*ahead, node)):
            return None
        if not set(node.inputs) & {one.name for one in ahead}:
            return index
        ahead.append(node)
    return None


def visible_gpus() -> list[str]:
    """Return the names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES has them."""
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get(VISIBLE)
    return ([name.strip() for name in named.split(",")] if named else [str(index) for index in range(count)])[:count]


def lane_environments(lanes: int, gpus: Sequence[str]) -> list[dict[str, str]]:
    """Return the variables that give each of several lanes its own share of the CPU's cores, and of the GPUs.

    Args:
        lanes: how many fits may run at once.
        gpus: their names; none where there are CPU cores only.

    Raises:
        UsageError: more lanes than GPUs.
    """
    if lanes == 1:
        return [{}]
    threads = {THREADS: os.environ.get(THREADS) or str(max(1, (os.cpu_count() or 1) // lanes))}
    if not gpus:
        return [threads] * lanes
    if len(gpus) < lanes:
        raise UsageError(f"--side_by_side {lanes}: each fit needs a GPU of its own, found {len(gpus)}")
    share = len(gpus) // lanes
    return [{VISIBLE: ",".join(gpus[lane * share : (lane + 1) * share]), **threads} for lane in range(lanes)]


def settle_threads() -> None:
    """Let torch use as many threads as the environment says, in a process that was forked with torch imported."""
    if named := os.environ.get(THREADS):
        import torch

        torch.set_num_threads(int(named.split(",")[0]))
