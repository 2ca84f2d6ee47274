"""What `sipo_pl.interop.torch` takes for granted of torch."""

import torch

from sipo_pl.interop.torch import allow_recompilations, lost_cuda_by_fork


def test_a_process_that_was_not_forked_has_its_gpu() -> None:
    assert lost_cuda_by_fork() is False


def test_the_limit_of_recompilations_only_grows() -> None:
    before = torch._dynamo.config.recompile_limit
    try:
        allow_recompilations(before + 5)
        allow_recompilations(1)
        assert torch._dynamo.config.recompile_limit == before + 5
    finally:
        torch._dynamo.config.recompile_limit = before
