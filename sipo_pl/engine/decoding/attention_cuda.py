"""One new token a row on a GPU: each segment is read once for all the rows behind it (Triton).

The levels are read one after the other, the last first, and hand on the running maximum, sum and weighted values of a
softmax that is never held whole. No length is known to the host, so that a CUDA graph may hold the whole step.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sipo_pl.engine.decoding.segments import SegmentPath

KEYS = 64  # keys in one step of a program
QUERIES = 16  # queries of a program; the least that the matrix units take
EVERYWHERE = 2**30  # a window that hides nothing


def one_token(
    layer: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    path: SegmentPath,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """Add one token a row to the path's last level and attend to the path; see `attention.path_attention`."""
    last = path.last
    groups, rows, key_heads, _, size = last.layer(layer, key, value)[0].shape
    heads = query.shape[1]
    output = torch.empty(groups * rows, 1, heads, size, dtype=query.dtype, device=query.device)
    running = torch.empty(groups, rows, heads, size + 2, dtype=torch.float32, device=query.device)
    for index, (level, members) in enumerate(reversed(list(zip(path.levels, path.members, strict=True)))):
        queries = members.shape[1] * (heads // key_heads)
        grid = (level.segments * key_heads, triton.cdiv(queries, QUERIES), groups)  # only the first may pass 65,535
        _attend[grid](
            query,
            key,
            value,
            level.keys[layer],
            level.values[layer],
            members,
            level.lengths,
            level.offsets,
            path.asks,
            running,
            output,
            rows,
            members.shape[1],
            level.segments,
            level.capacity,
            scale,
            EVERYWHERE if window is None else window,
            0.0 if softcap is None else softcap,
            KEY_HEADS=key_heads,
            SHARED=heads // key_heads,
            SIZE=size,
            PADDED=triton.next_power_of_2(size),
            QUERIES=QUERIES,
            KEYS=KEYS,
            FIRST=index == 0,
            FINAL=index == len(path.above),
            CAPPED=softcap is not None,
        )
    return output


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _tanh(x):  # type: ignore[no-untyped-def]
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _attend(  # type: ignore[no-untyped-def]
    query,  # (K * R, heads, 1, size)
    new_key,  # (K * R, key heads, 1, size)
    new_value,
    keys,  # (K, S, key heads, capacity, size)
    values,
    members,  # (S, most), -1 where there is no row
    lengths,  # (S,)
    offsets,  # (S,)
    asks,  # (R,)
    running,  # (K, R, heads, size + 2): weighted values, maximum, sum
    output,  # (K * R, 1, heads, size)
    rows,
    most,
    segments,
    capacity,
    scale,
    window,
    softcap,
    KEY_HEADS: tl.constexpr,
    SHARED: tl.constexpr,
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    FIRST: tl.constexpr,
    FINAL: tl.constexpr,
    CAPPED: tl.constexpr,
):
    heads: tl.constexpr = KEY_HEADS * SHARED
    segment = tl.program_id(0) // KEY_HEADS
    key_head = tl.program_id(0) % KEY_HEADS
    group = tl.program_id(2).to(tl.int64)
    index = tl.program_id(1) * QUERIES + tl.arange(0, QUERIES)
    member = index // SHARED
    row = tl.load(members + segment * most + member, mask=member < most, other=-1).to(tl.int64)
    real = row >= 0
    if tl.max(row, axis=0) < 0:
        return
    row = tl.where(real, row, 0)
    head = key_head * SHARED + index % SHARED
    lane = tl.arange(0, PADDED)
    inside = lane < SIZE
    which = (group * rows + row) * heads + head
    q = tl.load(query + which[:, None] * SIZE + lane[None], mask=real[:, None] & inside[None], other=0.0)
    state = running + which * (SIZE + 2)
    length = tl.load(lengths + segment).to(tl.int32)
    offset = tl.load(offsets + segment).to(tl.int32)
    ask = tl.load(asks + row).to(tl.int32)
    base = ((group * segments + segment) * KEY_HEADS + key_head) * capacity * SIZE
    if FIRST:
        new = ((group * rows + segment) * KEY_HEADS + key_head) * SIZE + lane
        k_new = tl.load(new_key + new, mask=inside, other=0.0)
        v_new = tl.load(new_value + new, mask=inside, other=0.0)
        tl.store(keys + base + length * SIZE + lane, k_new, mask=inside)
        tl.store(values + base + length * SIZE + lane, v_new, mask=inside)
        best = tl.sum(q.to(tl.float32) * k_new[None].to(tl.float32), axis=1) * scale
        if CAPPED:
            best = _tanh(best / softcap) * softcap
        total = tl.full([QUERIES], 1.0, tl.float32)
        mixed = tl.zeros([QUERIES, PADDED], tl.float32) + v_new[None].to(tl.float32)
    else:
        mixed = tl.load(state[:, None] + lane[None], mask=real[:, None] & inside[None], other=0.0)
        best = tl.load(state + SIZE, mask=real, other=0.0)
        total = tl.load(state + SIZE + 1, mask=real, other=1.0)
    for start in range(0, length, KEYS):
        slot = start + tl.arange(0, KEYS)
        here = slot < length
        at = base + slot[:, None] * SIZE + lane[None]
        k = tl.load(keys + at, mask=here[:, None] & inside[None], other=0.0)
        v = tl.load(values + at, mask=here[:, None] & inside[None], other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        if CAPPED:
            scores = _tanh(scores / softcap) * softcap
        seen = here[None] & (ask[:, None] - (offset + slot)[None] < window)
        scores = tl.where(seen, scores, -float("inf"))
        higher = tl.maximum(best, tl.max(scores, axis=1))
        shrink = tl.exp(best - higher)
        p = tl.exp(scores - higher[:, None])
        total = total * shrink + tl.sum(p, axis=1)
        mixed = mixed * shrink[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")
        best = higher
    if FINAL:
        tl.store(
            output + which[:, None] * SIZE + lane[None],
            (mixed / total[:, None]).to(output.dtype.element_ty),
            mask=real[:, None] & inside[None],
        )
    else:
        tl.store(state[:, None] + lane[None], mixed, mask=real[:, None] & inside[None])
        tl.store(state + SIZE, best, mask=real)
        tl.store(state + SIZE + 1, total, mask=real)
