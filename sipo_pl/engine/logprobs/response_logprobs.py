"""Log-probabilities of responses: logits only at response positions, in chunks, log-softmax in float32."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from sipo_pl.engine.models.zero3 import gathered, is_divided
from sipo_pl.text.token_batch import TokenBatch

CHUNK = {False: 128, True: 2048}  # response positions whose logits exist at once, on a CPU and on a GPU

Head = Callable[[Tensor], Tensor]  # hidden states, (n, hidden), to logits, (n, vocabulary)


def response_logps(model: PreTrainedModel, batch: TokenBatch) -> Tensor:
    """Return log pi(response | prompt), summed over response tokens.

    Equals ``log_softmax(logits.float())`` gathered at the next tokens and summed over the response mask, without the
    (rows, length, vocabulary) tensor.

    Args:
        model: a causal language model; may hold a stack of adapters, with rows arranged in groups.
        batch: rows, on the model's device.

    Returns:
        (rows,), float32.
    """
    hidden = decoder(model)(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=positions(batch.attention_mask),
        use_cache=False,
    ).last_hidden_state
    predicts = batch.response_mask[:, 1:]  # position t - 1 predicts token t
    tokens = batch.input_ids[:, 1:][predicts]
    picked = hidden[:, :-1][predicts]
    logps = token_logps(model, picked, tokens)
    rows = torch.arange(len(predicts), device=predicts.device)[:, None].expand_as(predicts)[predicts]
    return row_sums(logps, rows, len(predicts))


def row_sums(logps: Tensor, owners: Tensor, rows: int) -> Tensor:
    """Return the sum of each row's log-probabilities, on a GPU too the same each time.

    Args:
        logps: (..., n).
        owners: (n,), int64, the row that each belongs to.
        rows: how many there are.

    Returns:
        (..., rows).
    """
    if not logps.is_cuda:
        return logps.new_zeros(*logps.shape[:-1], rows).index_add(-1, owners, logps)
    # where index_add adds in whatever order its threads arrive
    empty = logps.new_zeros(rows, *logps.shape[:-1])
    return empty.index_put((owners,), logps.movedim(-1, 0), accumulate=True).movedim(0, -1)


def positions(attention_mask: Tensor) -> Tensor:
    """Return the position of each real token within its row, whichever side the padding is on."""
    return (attention_mask.cumsum(dim=-1) - 1).clamp(min=0)


def decoder(model: PreTrainedModel) -> torch.nn.Module:
    """Return the part of a causal language model below its head."""
    return model.get_decoder()


def logits_of(model: PreTrainedModel, hidden: Tensor, head: Head | None = None) -> Tensor:
    """Return float32 logits of hidden states, as the model's own forward would scale and cap them.

    Args:
        model: a causal language model.
        hidden: (..., hidden).
        head: takes the place of the model's head where given.
    """
    logits = (head or model.get_output_embeddings())(hidden).float()
    config = model.config.get_text_config()
    if scale := getattr(config, "logit_scale", None):  # Cohere
        logits = logits * scale
    if scale := getattr(config, "logits_scaling", None):  # Granite
        logits = logits / scale
    if cap := getattr(config, "final_logit_softcapping", None):  # Gemma
        logits = torch.tanh(logits / cap) * cap
    return logits


def has_linear_head(model: PreTrainedModel) -> bool:
    """Return whether `logits_of` is linear in the hidden states, up to a constant."""
    return not getattr(model.config.get_text_config(), "final_logit_softcapping", None)


def gaps(found: Tensor, expected: Tensor) -> Tensor:
    """Return |found - expected|, zero where both are -inf, as logits of tokens are that are never said."""
    return torch.where(found == expected, 0.0, (found - expected).abs())


def token_logps(model: PreTrainedModel, hidden: Tensor, tokens: Tensor) -> Tensor:
    """Return the log-probability of each token given the hidden state before it, in chunks.

    Args:
        model: a causal language model.
        hidden: (n, hidden).
        tokens: (n,), int64.

    Returns:
        (n,), float32.
    """
    head = model.get_output_embeddings()
    divided = is_divided(head.parameters())
    if any(one.requires_grad for one in head.parameters()):
        # a divided one is gathered by all devices at each call, and some have fewer tokens than others
        return _read(model, head, hidden, tokens, len(hidden) if divided else CHUNK[hidden.is_cuda])
    read = _TrainedLogps.apply if torch.is_grad_enabled() and hidden.requires_grad else _read
    with gathered(head.parameters()):  # once for all chunks, between which a call of the layer would divide it again
        return read(model, head.forward if divided else head, hidden, tokens, CHUNK[hidden.is_cuda])


def _read(model: PreTrainedModel, head: Head, hidden: Tensor, tokens: Tensor, chunk: int) -> Tensor:
    logps = []
    for states, targets in zip(hidden.split(chunk), tokens.split(chunk), strict=True):
        logits = logits_of(model, states, head)
        targets = targets.to(logits.device)
        if logits.requires_grad:
            logps.append(-F.cross_entropy(logits, targets, reduction="none"))
        else:
            logps.append(_exponentiate(logits, targets).logps)
    return torch.cat(logps).to(tokens.device)


class _TrainedLogps(torch.autograd.Function):
    """`token_logps` whose gradient to the hidden states is computed along with it, while a chunk's logits exist.

    A log-probability's gradient is fixed up to the factor that comes back to it, so nothing is computed twice and no
    logits are kept. The head is frozen.
    """

    @staticmethod
    def forward(ctx: Any, model: PreTrainedModel, head: Head, hidden: Tensor, tokens: Tensor, chunk: int) -> Tensor:
        logps: list[Tensor] = []
        slopes: list[Tensor] = []
        for states, targets in zip(hidden.split(chunk), tokens.split(chunk), strict=True):
            with torch.enable_grad():
                states = states.detach().requires_grad_()
                logits = logits_of(model, states, head)
            room = logits.detach()  # nobody else reads the logits, so that their memory can hold their gradient
            found = _exponentiate(room, targets.to(room.device))
            room.scatter_(1, found.places, room.gather(1, found.places) - found.total)
            (slope,) = torch.autograd.grad(logits, states, room)
            slopes.append((slope / -found.total.to(slope.device)).to(slope.dtype))
            logps.append(found.logps)
        ctx.save_for_backward(torch.cat(slopes))
        return torch.cat(logps).to(tokens.device)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, Tensor, None, None]:
        (slopes,) = ctx.saved_tensors
        return None, None, (slopes * grad[:, None]).to(slopes.dtype), None, None


class _Exponentiated(NamedTuple):
    """What is known of rows of logits in whose place their exponentials stand, those of the largest being one.

    Args:
        logps: (n,), log-probability of each row's token
        total: (n, 1), sum of each row's exponentials
        places: (n, 1), int64, the tokens
    """

    logps: Tensor
    total: Tensor
    places: Tensor


def _exponentiate(logits: Tensor, tokens: Tensor) -> _Exponentiated:
    """Put exponentials into the place of logits, (n, V): on a CPU fresh memory costs more than the arithmetic."""
    places = tokens[:, None]
    picked, top = logits.gather(1, places), logits.amax(dim=1, keepdim=True)
    total = logits.sub_(top).exp_().sum(dim=1, keepdim=True)
    return _Exponentiated((picked - top - total.log())[:, 0], total, places)
