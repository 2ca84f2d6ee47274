"""A model is tried on a few tokens when it is loaded: what is computed here must be what its own forward computes.

What the project does to a forward (rows that share a prompt, packed sequences, a cache of its own, logits at a few
positions) is right for families whose tokens meet in transformers' attention interface alone. Families are not known by
name: each model is compared with itself.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sipo_pl.engine.logprobs.packed_sequences import pack
from sipo_pl.engine.logprobs.response_logprobs import decoder, gaps, logits_of
from sipo_pl.engine.lora.groups import GroupedForward
from sipo_pl.engine.models.device_map import device_of
from sipo_pl.engine.models.zero3 import is_divided
from sipo_pl.interop.pretrained import explained
from sipo_pl.interop.transformers import is_stateful
from sipo_pl.messages.errors import UserError
from sipo_pl.text.templates import Encoded

PROMPT, BRANCH = 3, 2  # tokens of the prompt, and of each of the two responses behind it
LOGITS_ROUNDING = 0.02  # of the largest logit; bfloat16 keeps eight bits
# of a state's norm, in the middle and at most; in half precision layers add up rounding, and a router of experts may
# choose another one
STATES_ROUNDING = {True: (1e-3, 1e-2), False: (0.1, 0.5)}
LAYER_TYPES = ("full_attention", "sliding_attention")
WINDOW = 2  # tokens that sliding windows are narrowed to meanwhile, so that they hide something
MASKED = 1e3  # times the usual logit: the logit of a token that is never to be said


class OwnForward(NamedTuple):
    """What a model's own forward makes of two rows.

    Args:
        rows: (2, PROMPT + BRANCH), int64; both begin with the same prompt
        states: (2, PROMPT + BRANCH, hidden), behind the decoder
        logits: (2, PROMPT + BRANCH, vocabulary), float32
    """

    rows: Tensor
    states: Tensor
    logits: Tensor


def check_model(model: PreTrainedModel, label: str = "base_model") -> None:
    """Check that a model can be run as it is run here.

    Args:
        model: a causal language model.
        label: what messages begin with.

    Raises:
        UserError: logits that are no numbers, or that are changed behind the head in an unknown way; layers in which
            tokens meet outside of transformers' attention interface, so that rows side by side would change each other.
    """
    _refuse_states(model, label)
    if is_divided(model.parameters()):
        return  # no device can run it alone
    with _narrow_windows(model):
        own = own_forward(model, label)
        check_logits(model, own, label)
        check_paths(model, own, label)


@torch.inference_mode()
def own_forward(model: PreTrainedModel, label: str = "base_model") -> OwnForward:
    """Run a model's own forward on two short rows.

    Raises:
        UserError: it fails.
    """
    vocabulary = model.config.get_text_config().vocab_size
    count = PROMPT + 2 * BRANCH
    tokens = torch.tensor([(index + 1) * vocabulary // (count + 2) for index in range(count)])
    prompt, first, second = tokens.split([PROMPT, BRANCH, BRANCH])
    rows = torch.stack([torch.cat([prompt, first]), torch.cat([prompt, second])])
    seen: list[Tensor] = []
    with ExitStack() as held:
        held.enter_context(explained(f"{label}: {type(model).__name__} does not run as a causal language model"))
        hook = decoder(model).register_forward_hook(lambda module, given, output: seen.append(output.last_hidden_state))
        held.callback(hook.remove)
        device = device_of(model.get_input_embeddings())
        logits = model(input_ids=rows.to(device), use_cache=False).logits.float()
    return OwnForward(rows, seen[0], logits)


@torch.inference_mode()
def check_logits(model: PreTrainedModel, own: OwnForward, label: str = "base_model") -> None:
    """Raise UserError unless `logits_of` gives the logits of the model's own forward.

    Families scale or cap their logits behind the head in ways of their own, and some give one key two meanings. Tokens
    whose logits are -inf are never said; there may be such.
    """
    kind, logits = type(model).__name__, own.logits
    if wrong := int((logits.isnan() | (logits == torch.inf)).sum()):
        raise UserError(
            f"{label}: {kind} gives logits that are no numbers (nan or inf), {wrong} of {logits.numel()} for a few "
            "tokens: its weights hold such, or overflow"
        )
    if (logits == -torch.inf).all():
        raise UserError(f"{label}: {kind} gives logits of -inf to all tokens")
    found = logits_of(model, own.states).to(logits.device)
    size = logits[logits != -torch.inf].abs()
    largest = size[size <= MASKED * size.median()].max().clamp(min=torch.finfo(size.dtype).tiny)
    usual = (logits.abs() <= largest) | (found.abs() <= largest)  # not those of masked tokens on both sides
    gap = float(gaps(found, logits)[usual].max() / largest)
    if not gap <= LOGITS_ROUNDING:
        size_of_gap = f"they differ from the model's own by {gap:.2g} of the largest"
        if not gap < torch.inf:
            size_of_gap = "some are infinite, or no numbers, where the model's own are not"
        raise UserError(
            f"{label}: {kind} changes its logits behind the head in a way that is not known here: {size_of_gap}"
        )


@torch.inference_mode()
def check_paths(model: PreTrainedModel, own: OwnForward, label: str = "base_model") -> None:
    """Raise UserError unless rows that share a prompt, packed and decoded, are to a model what they are alone.

    Families that bring attention of their own (Bloom, Falcon), or none (Mamba), whose tokens meet elsewhere too
    (Falcon-H1), or that look ahead (BERT), would run without what rows share, or with what they do not.
    """
    kind, layers = type(model).__name__, model.config.get_text_config().num_hidden_layers
    why = (
        f"{label}: {kind} does not attend through transformers' attention interface in each of its {layers} layers; "
        "such families cannot share prompts between rows"
    )
    prompt = tuple(own.rows[0, :PROMPT].tolist())
    forward = GroupedForward([model], [0])
    try:
        with _counted_layers(model) as calls:
            _, level = forward.read([prompt], [], [0])
        if len(level.keys) != layers or max(calls.values(), default=1) > 1:
            raise UserError(why)
        rows = pack([Encoded(row, PROMPT) for row in own.rows.tolist()]).to(forward.device)
        packed = forward.packed_states(rows)[0][rows.sources].view(2, BRANCH, -1)
        responses = forward.below([level], [0, 0], 1)
        decoded = forward.run(own.rows[:, PROMPT : PROMPT + 1].to(forward.device), [level], responses)[0]
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a decoder that takes no keyword, or attends in another way than all others
        raise UserError(f"{why} ({type(error).__name__}: {str(error).strip()[:80]})") from error
    expected = own.states[:, PROMPT - 1 : PROMPT - 1 + BRANCH].to(forward.device)
    found = torch.cat([packed, decoded], dim=1).float()
    expected = torch.cat([expected, expected[:, 1:2]], dim=1).float()
    gap = ((found - expected).norm(dim=-1) / expected.norm(dim=-1)).flatten()
    middle, most = STATES_ROUNDING[model.dtype == torch.float32]
    if not (gap.median() <= middle and gap.max() <= most):
        raise UserError(
            f"{label}: {kind} gives other states to a row beside another one of its prompt than to the row alone: its "
            "tokens meet outside of transformers' attention interface, or see a window that is not told there; such "
            "families cannot share prompts between rows"
        )


@contextmanager
def _narrow_windows(model: PreTrainedModel) -> Iterator[None]:
    """Within the block, layers with a sliding window see few tokens: a family may mask them in a way of its own."""
    key = "sliding_window"
    holders: list[Any] = [model.config.get_text_config(), *model.modules()]
    wide = {id(one): (one, size) for one in holders if (size := getattr(one, key, None)) and size > WINDOW}
    for holder, _ in wide.values():
        setattr(holder, key, WINDOW)
    try:
        yield
    finally:
        for holder, size in wide.values():
            setattr(holder, key, size)


@contextmanager
def _counted_layers(model: PreTrainedModel) -> Iterator[Counter[nn.Module]]:
    """Within the block, the calls of each attention layer are counted; a looped model runs one several times."""
    calls: Counter[nn.Module] = Counter()

    def count(module: nn.Module, given: Any, output: Any) -> None:
        calls[module] += 1

    with ExitStack() as held:
        for module in model.modules():
            if hasattr(module, "layer_idx"):
                held.callback(module.register_forward_hook(count).remove)
        yield calls


def _refuse_states(model: PreTrainedModel, label: str) -> None:
    """Refuse what a few tokens may not show: states that go from token to token, layers that choose tokens."""
    config, kind = model.config.get_text_config(), type(model).__name__
    others = sorted(set(getattr(config, "layer_types", None) or ()) - set(LAYER_TYPES))
    if is_stateful(model):
        what = "carries a state from token to token beside its attention"
    elif others:
        what = f"has layers that are not supported ({', '.join(others)})"
    else:
        return
    raise UserError(f"{label}: {kind} {what}; such families cannot share prompts between rows")
