"""The decoder's layers compiled one by one: on a GPU their many small operations become a few."""

from transformers import PreTrainedModel

from sipo_pl.engine.logprobs.response_logprobs import decoder
from sipo_pl.interop.torch import allow_recompilations

RECOMPILATIONS = 64  # groups, rows and whether a prompt or a token is read all make shapes of their own


def compile_layers(model: PreTrainedModel, backend: str = "inductor") -> None:
    """Compile every layer of a model in place; the first forwards of each kind then take some seconds longer.

    Args:
        model: a causal language model of transformers.
        backend: of torch.compile.
    """
    allow_recompilations(RECOMPILATIONS)
    for layer in decoder(model).get_submodule("layers").children():
        layer.compile(dynamic=True, backend=backend)
