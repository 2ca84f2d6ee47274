"""Internals of torch: CUDA in forked processes, and how often a layer is compiled anew."""

import torch


def lost_cuda_by_fork() -> bool:
    """Return whether the process that this one was forked from had used CUDA, so that this one cannot."""
    return bool(torch.cuda._is_in_bad_fork())


def allow_recompilations(count: int) -> None:
    """Let a function be compiled for at least so many kinds of arguments before torch gives up on it."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, count)
