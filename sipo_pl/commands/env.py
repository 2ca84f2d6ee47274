"""Command env: what a bug report should say of the machine and its packages."""

import importlib.metadata
import os
import platform

PACKAGES = (
    "sipo_pl",
    "torch",
    "lightning",
    "transformers",
    "peft",
    "datasets",
    "tokenizers",
    "safetensors",
    "huggingface_hub",
    "jsonargparse",
    "torchmetrics",
    "moocore",
    "numpy",
    "triton",
    "deepspeed",
)
VARIABLES = (
    "OMP_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "HF_HUB_OFFLINE",
    "SIPO_PL_DEBUG",
)  # no places


def env() -> None:
    """Print versions and hardware, for bug reports; no paths and no names of machines."""
    for name, value in {**_system(), **_packages(), **_torch(), **_variables()}.items():
        print(f"{name:<22}{value}")


def _system() -> dict[str, str]:
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    found = {"python": platform.python_version(), "system": system}
    found["processors"] = str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory"] = f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB"
    return found


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _torch() -> dict[str, str]:
    import torch

    found = {"torch threads": str(torch.get_num_threads()), "CUDA of torch": torch.version.cuda or "none"}
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        found[f"GPU {index}"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    return found


def _variables() -> dict[str, str]:
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}
