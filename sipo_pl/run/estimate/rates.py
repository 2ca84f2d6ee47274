"""How fast a device is: from the shipped table, or measured here in a moment."""

import time
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

from sipo_pl.messages.errors import UsageError, nearest
from sipo_pl.recipe.config.files import find_config, load_yaml

HERE = "here"
TABLE = Path(__file__).with_name("rates.yaml")
# what measured rates are of a matrix product's and of a copy's on the device that the table is measured on
TRAINING_SHARE, SCORING_SHARE, COPY_SHARE = 0.76, 0.7, 0.88
DECODING_SHARE = 0.3  # of a matrix product's, what decode steps reach on a CPU: products of few rows, and attention
MOMENT = 0.3  # seconds that each is measured for


@dataclass(frozen=True)
class Rates:
    """What a device does in a second.

    Args:
        source: where the numbers are from
        training: operations of a forward and backward pass
        forward_seconds: what that takes beside, with 32 layers
        scoring: operations of a forward alone
        bandwidth: bytes that a decode step reads
        step_seconds: what that takes at least, with 32 layers
        memory: GiB
        launch_seconds: what a forward and backward pass of 32 layers takes at least where its kernels are launched
            one by one
        decoding: operations of decode steps; those of `scoring` where it is 0
    """

    source: str
    training: float
    forward_seconds: float
    scoring: float
    bandwidth: float
    step_seconds: float
    memory: float
    launch_seconds: float
    decoding: float = 0.0


def rates_of(device: str, dtype: str) -> Rates:
    """Return the rates of a device: a name of the table, a table of one's own and a name, or `here`.

    Args:
        device: such as h200, here, or my_rates.yaml:my_card.
        dtype: of the base model.

    Raises:
        UsageError: no such device or file.
    """
    if device == HERE:
        return measure(dtype)
    file, _, name = device.rpartition(":")
    table = load_yaml(find_config(file) if file else TABLE)
    if name not in table:
        raise UsageError(f"--estimate {device}: no such device{nearest(name, [HERE, *table])}")
    known = {field.name: field.default is MISSING for field in fields(Rates)}
    if missing := {key for key, is_needed in known.items() if is_needed} - set(table[name]):
        raise UsageError(f"{file or TABLE}: {name}: no {min(missing)!r}")
    return Rates(**{key: value for key, value in table[name].items() if key in known})


def measure(dtype: str) -> Rates:
    """Measure a matrix product and a copy on the device that is here, and derive the rest."""
    import torch

    gpu = torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    size = 8192 if gpu else 1024
    square = torch.ones(size, size, dtype=getattr(torch, dtype), device=device)
    wide = torch.ones(2**28 if gpu else 2**24, dtype=torch.float32, device=device)
    target = torch.empty_like(wide)

    def seconds(work: Callable[[], object]) -> float:
        work()
        count, start = 0, time.perf_counter()
        while count == 0 or time.perf_counter() - start < MOMENT:
            work()
            if gpu:
                torch.cuda.synchronize()
            count += 1
        return (time.perf_counter() - start) / count

    products = 2 * size**3 / seconds(lambda: square @ square)
    copies = 2 * wide.nbytes / seconds(lambda: target.copy_(wide))
    return Rates(
        source=f"derived from a matrix product ({products:.2g} operations/s) and a copy ({copies:.2g} B/s), measured",
        training=TRAINING_SHARE * products,
        forward_seconds=0.015 if gpu else 0.0,
        scoring=SCORING_SHARE * products,
        bandwidth=COPY_SHARE * copies,
        step_seconds=0.0076 if gpu else 0.0,
        memory=(torch.cuda.mem_get_info()[1] if gpu else _cpu_memory()) / 2**30,
        launch_seconds=0.15 if gpu else 0.0,
        decoding=0.0 if gpu else DECODING_SHARE * products,
    )


def _cpu_memory() -> int:
    import os

    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
