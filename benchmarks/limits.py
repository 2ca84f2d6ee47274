"""What the machine allows: bytes that a decode step must read, and operations that scoring must do."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn
from transformers import PreTrainedModel

from sipo_pl.engine.decoding.options import Request
from sipo_pl.engine.lora.adapters import Factors
from sipo_pl.text.templates import Encoded


class StepBytes(NamedTuple):
    """Bytes that one decode step reads.

    Args:
        weights: of the base model, without an input embedding that is not the head as well, and of the adapters
        cache_alone: keys and values, each row's prompt read for itself
        cache_shared: keys and values, a prompt read once for its rows, a header once for all
    """

    weights: int
    cache_alone: float
    cache_shared: float


def step_bytes(
    model: PreTrainedModel, factors: Sequence[Factors], requests: Sequence[Request], header: int, behind: float
) -> StepBytes:
    """Return the bytes of a step of all rows.

    Args:
        model: the base model.
        factors: adapters of the K policies.
        requests: the rows.
        header: tokens that all prompts begin with.
        behind: tokens of the responses so far, of a row in the mean.
    """
    config, size = model.config, model.dtype.itemsize
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    token = 2 * config.num_hidden_layers * config.num_key_value_heads * head * size * len(factors)
    prompts = {request.prompt_ids for request in requests}
    said = behind * len(requests)
    shared = header + sum(len(prompt) - header for prompt in prompts)
    alone = sum(len(request.prompt_ids) for request in requests)
    weights = sum(p.numel() for name, p in model.named_parameters() if not _is_lookup(model, name))
    low_rank = sum(a.numel() + b.numel() for adapter in factors for a, b in adapter.values())
    return StepBytes((weights + low_rank) * size, (alone + said) * token, (shared + said) * token)


def scoring_operations(
    model: PreTrainedModel, factors: Sequence[Factors], rows: Sequence[Encoded], groups: int
) -> float:
    """Return the floating-point operations of scoring rows in `groups` groups, a prompt once for all its responses.

    Per token and group, 2 for each weight of a base linear; per token and adapter, 2 for each of A and B; per pair of a
    token and one that it sees, and group, 4 x layers x heads x head size; per response token and group, 2 for each
    weight of the head.
    """
    config = model.config
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    head = model.get_output_embeddings()
    linears = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear) and m is not head)
    low_rank = sum(a.numel() + b.numel() for adapter in factors for a, b in adapter.values())
    prompts = {tuple(row.input_ids[: row.prompt_length]) for row in rows}
    said = sum(row.response_length for row in rows)
    tokens = sum(map(len, prompts)) + said
    pairs = sum(len(prompt) ** 2 / 2 for prompt in prompts)
    pairs += sum(row.response_length * (row.prompt_length + row.response_length / 2) for row in rows)
    attention = 4 * config.num_hidden_layers * config.num_attention_heads * head_size * pairs
    return groups * (2 * linears * tokens + attention + 2 * head.weight.numel() * said) + 2 * low_rank * tokens


def training_operations(model: PreTrainedModel, pairs: Sequence[tuple[Encoded, Encoded]]) -> float:
    """Return the floating-point operations of a forward and a backward pass of pairs, a prompt once for both rows.

    Forward as `scoring_operations` counts, for one group. Backward as much again, for the gradients of states, which is
    less than attention needs, and for A and B once more, for their own. Nothing for frozen weights.
    """
    trained = [parameter.numel() for parameter in model.parameters() if parameter.requires_grad]
    rows = [row for pair in pairs for row in pair]
    prompts = sum(chosen.prompt_length for chosen, _ in pairs)
    tokens = prompts + sum(row.response_length for row in rows)
    both = scoring_operations(model, [], rows, 1)
    return 2 * both + 6 * sum(trained) * tokens


def _is_lookup(model: PreTrainedModel, name: str) -> bool:
    return "embed_tokens" in name and not model.config.tie_word_embeddings
