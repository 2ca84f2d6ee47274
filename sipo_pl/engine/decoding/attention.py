"""Attention along a path of segments, as an attention function of transformers.

A model runs with it between `attend_along` and its end. One new token a row (decoding) reads each shared segment once
for all the rows behind it; several new tokens a row (prompts, whole responses) are one call of torch's attention.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from sipo_pl.engine.decoding.segments import LevelRead, SegmentPath
from sipo_pl.interop.transformers import attention_name, sdpa_attention_forward
from sipo_pl.messages.errors import UserError

NAME = "sipo_pl_path"


@contextlib.contextmanager
def attend_along(model: PreTrainedModel, name: str = NAME) -> Iterator[None]:
    """Within the block, the model attends by the function of this name; by that here, along the keyword `path`."""
    before = attention_name(model)
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@torch.compiler.disable
def path_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    path: SegmentPath,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Add the new tokens to the path's last level and attend to the path.

    Args:
        module: the attention layer, which knows its `layer_idx`.
        query: (K * R, heads, n, size).
        key: (K * R, key heads, n, size).
        value: (K * R, key heads, n, size); its size may be another (DeepSeek-V3).
        attention_mask: not looked at; what a token sees follows from the path.
        path: where the rows are.
        scaling: of the scores; one over the square root of the head size where not given.
        sliding_window: tokens that a token sees at most, itself included; all where not given.
        softcap: bound of the scores, by a hyperbolic tangent; none where not given.
        kwargs: not looked at, but for `s_aux`.

    Returns:
        (K * R, n, heads, size), and no weights.

    Raises:
        UserError: attention sinks (GPT-OSS), which no path carries.
    """
    refuse_sinks(module, kwargs)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    size = value.shape[-1]
    query, key, value = alike_heads(query, key, value)
    path = path.on(query.device)
    if query.shape[2] > 1:
        return _many_tokens(module, query, key, value, path, scale, sliding_window, softcap)[..., :size], None
    if query.is_cuda:
        from sipo_pl.engine.decoding.attention_cuda import one_token
    else:
        one_token = _one_token
    layer = path.first_layer + module.layer_idx
    with torch.cuda.device(query.device) if query.is_cuda else contextlib.nullcontext():  # which kernels start on
        return one_token(layer, query, key, value, path, scale, sliding_window, softcap)[..., :size], None


def _many_tokens(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    path: SegmentPath,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """Attend from the first tokens of empty segments, padded on the right."""
    last, layer, count = path.last, path.first_layer + module.layer_idx, query.shape[2]
    if last.kept:
        keys, values = last.layer(layer, key, value)
        keys[:, :, :, :count] = key.view(len(keys), last.segments, *key.shape[1:])
        values[:, :, :, :count] = value.view(len(keys), last.segments, *value.shape[1:])
    above = [
        (level.keys[layer][:, owner].flatten(0, 1), level.values[layer][:, owner].flatten(0, 1))
        for level, owner in zip(path.above, path.owners, strict=True)
    ]
    key = torch.cat([*(k for k, _ in above), key], dim=2)
    value = torch.cat([*(v for _, v in above), value], dim=2)
    mask = None
    if above or window is not None or softcap is not None:
        mask = _visible(path, count, window)[:, None].repeat(len(query) // last.segments, 1, 1, 1)
    if softcap is not None:
        return capped(query, key, value, mask, scale, softcap)
    return sdpa_attention_forward(module, query, key, value, mask, scaling=scale, is_causal=mask is None)[0]


def _visible(path: SegmentPath, count: int, window: int | None) -> Tensor:
    """Return which keys each of `count` new tokens sees, (R, count, keys above + count), bool."""
    last = path.last
    index = torch.arange(count, device=last.lengths.device)
    asks = last.offsets[:, None] + index  # positions
    places, real = [], []
    for level, owner in zip(path.above, path.owners, strict=True):
        slots = torch.arange(level.capacity, device=owner.device)
        places.append(level.offsets[owner][:, None] + slots)
        real.append(slots < level.lengths[owner][:, None])
    places.append(asks)
    real.append(torch.ones_like(asks, dtype=torch.bool))
    place = torch.cat(places, dim=1)[:, None]
    distance = asks[:, :, None] - place
    seen = torch.cat(real, dim=1)[:, None] & (distance >= 0)
    return seen if window is None else seen & (distance < window)


def alike_heads(*states: Tensor) -> tuple[Tensor, ...]:
    """Return queries, keys and values with heads of one size: smaller ones end in zeros, which add nothing."""
    size = max(one.shape[-1] for one in states)
    return tuple(one if one.shape[-1] == size else F.pad(one, (0, size - one.shape[-1])) for one in states)


def refuse_sinks(module: Any, kwargs: Mapping[str, Any]) -> None:
    """Raise UserError for attention sinks (GPT-OSS), whose scores come as a keyword."""
    if kwargs.get("s_aux") is not None:
        raise UserError(f"base_model: {type(module).__name__} has attention sinks, which are not supported")


def capped(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, softcap: float) -> Tensor:
    """Attend with scores capped by a hyperbolic tangent (Gemma 2); shapes as in `path_attention`."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = torch.tanh(query @ key.mT * (scale / softcap)) * softcap
    scores = scores.masked_fill(~mask, -torch.inf) if mask is not None else scores
    return (scores.float().softmax(dim=-1).to(query.dtype) @ value).transpose(1, 2)


def _one_token(
    layer: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    path: SegmentPath,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """Attend from one new token a row; a shared segment is read once for all its rows."""
    last = path.last
    keys, values = last.layer(layer, key, value)
    groups, rows = keys.shape[:2]
    each = torch.arange(rows, device=key.device)
    keys[:, each, :, last.lengths] = key.view(groups, rows, -1, key.shape[-1]).transpose(0, 1)
    values[:, each, :, last.lengths] = value.view(groups, rows, -1, value.shape[-1]).transpose(0, 1)
    q = query.view(groups, rows, keys.shape[2], -1, query.shape[-1])  # (K, R, key heads, queries a key, size)
    scores = []
    for read in path.reads:
        found = _grouped(q, read) @ read.level.keys[layer][:, :, :, : read.longest].mT
        found = _by_row(found, read).mul_(scale)
        found = torch.tanh(found / softcap) * softcap if softcap is not None else found
        hidden = read.hidden
        if window is not None:
            hidden = hidden | (path.asks[:, None] - read.places >= window)
        scores.append(found.masked_fill_(hidden[:, None, None], -torch.inf))
    weights = torch.cat(scores, dim=-1).float().softmax(dim=-1).to(query.dtype)
    output = torch.zeros_like(q)
    for read, part in zip(path.reads, weights.split([read.longest for read in path.reads], dim=-1), strict=True):
        found = _grouped(part, read) @ read.level.values[layer][:, :, :, : read.longest]
        output += _by_row(found, read)
    return output.view(groups * rows, 1, -1, query.shape[-1])


def _grouped(rows: Tensor, read: LevelRead) -> Tensor:
    """Arrange (K, R, heads, queries, n) by segment: (K, S, heads, members * queries, n)."""
    return rows if read.own else rows[:, read.members].transpose(2, 3).flatten(3, 4)


def _by_row(found: Tensor, read: LevelRead) -> Tensor:
    """Arrange (K, S, heads, members * queries, n) by row again: (K, R, heads, queries, n)."""
    if read.own:
        return found
    return found.unflatten(3, (read.members.shape[1], -1)).transpose(2, 3).flatten(1, 2)[:, read.where]


AttentionInterface.register(NAME, path_attention)
AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
