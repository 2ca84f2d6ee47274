"""Log-probabilities of responses that share prompts: each prompt is computed once, for scoring without gradients."""

from collections.abc import Sequence

from torch import Tensor

from sipo_pl.engine.logprobs.packed_sequences import pack
from sipo_pl.engine.logprobs.response_logprobs import row_sums
from sipo_pl.engine.lora.groups import GroupedForward
from sipo_pl.text.templates import Encoded


def shared_prompt_logps(forward: GroupedForward, rows: Sequence[Encoded]) -> Tensor:
    """Return log pi_k(response | prompt) of every row under every adapter group; `response_logps`, with less work.

    Args:
        forward: the K groups.
        rows: R prompts with responses.

    Returns:
        (K, R), float32.
    """
    packed = pack(rows).to(forward.device)
    states = forward.packed_states(packed)[:, packed.sources]
    logps = forward.token_logps(states, packed.targets)
    return row_sums(logps, packed.owners, packed.distinct)[:, packed.places]
