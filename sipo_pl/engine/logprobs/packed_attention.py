"""Attention among packed rows, as an attention function of transformers.

On a GPU, in half precision, all spans are one call of torch's flash attention for sequences of various lengths; else
each span is a call of torch's attention.
"""

import importlib.util
import inspect
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

from sipo_pl.engine.decoding.attention import alike_heads, capped, refuse_sinks
from sipo_pl.engine.logprobs.packed_sequences import PackedLayout, Span
from sipo_pl.interop.transformers import sdpa_attention_forward
from sipo_pl.messages.errors import UserError

NAME = "sipo_pl_packed"
LARGEST_HEAD = 256  # of flash attention
HAS_FLASH = importlib.util.find_spec("torch.nn.attention.varlen") is not None  # from torch 2.10 on


@torch.compiler.disable
def packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packed: PackedLayout,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend within each packed row.

    Args:
        module: the attention layer.
        query: (K, heads, length, size).
        key: (K, key heads, length, size).
        value: (K, key heads, length, size); its size may be another (DeepSeek-V3).
        attention_mask: not looked at; what a token sees follows from the layout.
        packed: where the rows are.
        scaling: of the scores; one over the square root of the head size where not given.
        sliding_window: tokens that a token sees at most, itself included; all where not given.
        softcap: bound of the scores, by a hyperbolic tangent; none where not given.
        kwargs: not looked at, but for `s_aux`.

    Returns:
        (K, length, heads, size), and no weights.
    """
    refuse_sinks(module, kwargs)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    size = value.shape[-1]
    query, key, value = alike_heads(query, key, value)
    if query.is_cuda and takes_flash(query.dtype, query.shape[-1], softcap):
        return _all_at_once(query, key, value, packed, scale, sliding_window)[..., :size], None
    return _span_by_span(module, query, key, value, packed, scale, sliding_window, softcap)[..., :size], None


def takes_flash(dtype: torch.dtype, head_size: int, softcap: float | None) -> bool:
    """Return whether flash attention is there and takes such heads, on a GPU."""
    return HAS_FLASH and dtype in (torch.bfloat16, torch.float16) and softcap is None and head_size <= LARGEST_HEAD


def _span_by_span(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: PackedLayout,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    outputs = []
    together = len(query) if len(set(layout.spans)) == 1 else 1  # sequences that a call of attention takes
    split = query.split(together), key.split(together), value.split(together)
    for spans, *sequence in zip(layout.spans[::together], *split, strict=True):
        lengths = [span.length for span in spans]
        # split, whose backward joins the parts at once, where slices would add each to zeros
        q, keys, values = (tensor.split(lengths, dim=2) for tensor in sequence)
        tops = {span.start: index for index, span in enumerate(spans)}
        parts = []
        for index, span in enumerate(spans):
            own_key, own_value = (_below(one, tops[span.above], index, span) for one in (keys, values))
            mask = layout.mask(span, window, query.device, explicit=softcap is not None)
            if softcap is not None:
                parts.append(capped(q[index], own_key, own_value, mask, scale, softcap))
            else:
                states = (q[index], own_key, own_value)
                parts.append(sdpa_attention_forward(module, *states, mask, scaling=scale, is_causal=mask is None)[0])
        outputs.append(torch.cat(parts, dim=1))
    return torch.cat(outputs)


def _below(parts: tuple[Tensor, ...], top: int, index: int, span: Span) -> Tensor:
    return torch.cat([parts[top][:, :, : span.depth], parts[index]], dim=2) if span.depth else parts[index]


def _all_at_once(
    query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout, scale: float, window: int | None
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    found = layout.remember(("lengths", query.device), lambda: span_lengths(layout, query.device))
    q, k, v = (tensor.transpose(1, 2).flatten(0, 1) for tensor in (query, key, value))
    if q.shape[1] != k.shape[1]:  # not every version of the function takes fewer heads of keys
        k, v = (tensor.repeat_interleave(q.shape[1] // tensor.shape[1], dim=1) for tensor in (k, v))
    if len(found.copies):
        k, v = (_SharedKeys.apply(tensor, *found[4:]) for tensor in (k, v))
    options: dict[str, Any] = {"scale": scale, "window_size": (-1 if window is None else window - 1, 0)}
    if "window_size" not in inspect.signature(varlen_attn).parameters:  # torch 2.10
        if window is not None or scale != query.shape[-1] ** -0.5:
            raise UserError("training in half precision on a GPU: this model's attention needs torch 2.11 or newer")
        options = {"is_causal": True}
    lengths = (found.queries, found.keys, found.most_queries, found.most_keys)
    made: Any = varlen_attn(q, k, v, *lengths, **options)
    output: Tensor = made.view(query.shape[0], query.shape[2], *made.shape[1:])
    return output


class SpanLengths(NamedTuple):
    """What flash attention is told of the spans.

    Args:
        queries: (spans + 1,), int32, index of the first query of each span, and of the end
        keys: (spans + 1,), int32, index of the first key of each span, and of the end
        most_queries: queries of the span that has most
        most_keys: keys of the span that has most
        source: (keys,), int64, the token of each key
        own: (K * length,), int64, index of each token among the keys of its own span
        copies: (keys - K * length,), int64, indices of the keys that are copies for spans further down
        copied: (keys - K * length,), int64, the tokens that these are copies of
    """

    queries: Tensor
    keys: Tensor
    most_queries: int
    most_keys: int
    source: Tensor
    own: Tensor
    copies: Tensor
    copied: Tensor


def span_lengths(layout: PackedLayout, device: torch.device) -> SpanLengths:
    """Return what flash attention is told of a layout: each span with the tokens above it is a sequence of keys."""
    spans = layout.flat
    lengths = torch.tensor([span.length for span in spans])
    depths = torch.tensor([span.depth for span in spans])
    above = torch.tensor([span.above for span in spans])
    before = torch.cumsum(depths, 0)  # copies up to and with each span
    tokens = torch.arange(int(lengths.sum()))
    own = tokens + before.repeat_interleave(lengths)
    number = torch.arange(int(before[-1])) - (before - depths).repeat_interleave(depths)
    starts = torch.cumsum(lengths + depths, 0) - lengths - depths
    copies = starts.repeat_interleave(depths) + number
    copied = above.repeat_interleave(depths) + number
    source = torch.empty(len(own) + len(copies), dtype=torch.long)
    source[own], source[copies] = tokens, copied
    borders = [torch.cat([torch.zeros(1), torch.cumsum(one, 0)]).int() for one in (lengths, lengths + depths)]
    return SpanLengths(
        borders[0].to(device),
        borders[1].to(device),
        int(lengths.max()),
        int((lengths + depths).max()),
        source.to(device),
        own.to(device),
        copies.to(device),
        copied.to(device),
    )


def known_layout(length: int, lengths: SpanLengths) -> PackedLayout:
    """Return the layout of a sequence of which nothing is known but what flash attention is told."""
    return PackedLayout(length, (), {("lengths", lengths.queries.device): lengths})


class _SharedKeys(torch.autograd.Function):
    """Keys or values, (tokens, heads, size), with those above each span once more in front of it."""

    @staticmethod
    def forward(ctx: Any, keys: Tensor, source: Tensor, own: Tensor, copies: Tensor, copied: Tensor) -> Tensor:
        ctx.save_for_backward(own, copies, copied)
        return keys.index_select(0, source)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        own, copies, copied = ctx.saved_tensors
        alone = grad.index_select(0, own).index_add_(0, copied, grad.index_select(0, copies))
        return alone, None, None, None, None


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
