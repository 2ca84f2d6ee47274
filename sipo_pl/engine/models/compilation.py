"""The decoder's layers compiled one by one: on a GPU their many small operations become a few."""

import torch
from transformers import PreTrainedModel

from sipo_pl.engine.logprobs.response_logprobs import decoder

RECOMPILATIONS = 64  # groups, rows and whether a prompt or a token is read all make shapes of their own


def compile_layers(model: PreTrainedModel, backend: str = "inductor") -> None:
    """Compile every layer of a model in place; the first forwards of each kind then take some seconds longer.

    Args:
        model: a causal language model of transformers.
        backend: of torch.compile.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, RECOMPILATIONS)
    for layer in decoder(model).get_submodule("layers").children():
        layer.compile(dynamic=True, backend=backend)
