"""Log-probabilities under an adapter in training, whose short forwards and backward passes are CUDA graphs.

A short forward takes a GPU less time than a CPU needs to launch its kernels, one by one. As a graph they are launched
at once, and so are those of its backward pass; the loss between them is computed as ever. Rows are padded to one of
few sizes (`padded.py`), each of which has a pair of graphs.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sipo_pl.engine.decoding.attention import attend_along
from sipo_pl.engine.logprobs.packed_attention import NAME, SpanLengths, known_layout, span_lengths, takes_flash
from sipo_pl.engine.logprobs.packed_sequences import Packed, distinct_logps, pack, packed_logps
from sipo_pl.engine.logprobs.padding import Size, padded, size_of
from sipo_pl.engine.lora.stack import LoRAStack
from sipo_pl.engine.models.device_map import is_spread
from sipo_pl.engine.models.zero3 import is_divided
from sipo_pl.text.templates import Encoded

log = logging.getLogger("sipo_pl")

# Tokens of a forward times weights of its model from where on kernels take about as long as their launches: 3,000
# tokens of seven billion weights on an H200, where launches take 0.15 s. Longer ones, whose states would only keep
# memory, are not captured.
SHORT = 2e13
MOST_SIZES = 64  # that have graphs: each takes a second to capture, and some memory


class AdapterLogps:
    """Log-probabilities of rows under the adapter that a stack trains.

    The states of a replayed forward last until its backward pass, or until the next replayed forward: a backward pass
    that comes later, or a second one, raises RuntimeError.

    Args:
        stack: of one adapter; where forwards are captured, its tensors are read where they lie.
        graphs: whether short forwards that want a gradient are replayed, where the model and its device allow it.
    """

    def __init__(self, stack: LoRAStack, graphs: bool) -> None:
        self.stack, self.graphs = stack, graphs
        self._places: list[int] = []  # of the ranks in training, when graphs were last captured
        self._most_tokens = 0
        self._pairs: dict[Size, _Pair] = {}
        self._numbers = count()
        self._standing: int | None = None  # the forward whose states are there

    def __call__(self, rows: Sequence[Encoded], device: torch.device) -> Tensor:
        """Return log pi(response | prompt) of rows, (rows,), float32, on a device, in one forward."""
        packed = pack(rows)
        if self._replays(packed.layout.length, device):
            inputs = padded(packed)
            numbers = _numbers_of(inputs)
            pair = self._pair(size_of(inputs), numbers)
            if pair is not None:
                logps: Tensor = _Replayed.apply(self, pair, torch.cat(numbers), *self.stack.trained)
                return logps.index_select(0, packed.places.pin_memory().to(device, non_blocking=True))
        with attend_along(self.stack.model, NAME):
            return packed_logps(self.stack.model, packed.to(device))

    def _replays(self, tokens: int, device: torch.device) -> bool:
        """Return whether a forward of so many tokens, packed, is to be replayed."""
        if not self.graphs or device.type != "cuda" or not torch.is_grad_enabled() or torch.is_autocast_enabled("cuda"):
            return False
        trained = self.stack.trained
        if is_divided(trained):  # and to touch them here would gather them
            return False
        places = [one.data_ptr() for one in trained]
        if places != self._places:  # at first, and where the model was moved
            self._places = places
            self._prepare()
        return tokens <= self._most_tokens

    def _prepare(self) -> None:
        """Look at the model, and make what all graphs share."""
        self._forget()
        self._most_tokens = 0
        if not _can_be_captured(self.stack):
            return
        model, trained = self.stack.model, self.stack.trained
        self._most_tokens = int(SHORT / sum(one.numel() for one in model.parameters()))
        self._stream = torch.cuda.Stream(model.device)
        self.shapes = [one.shape for one in trained]
        self.gradients = torch.zeros(sum(one.numel() for one in trained), device=model.device)

    def _forget(self) -> None:
        """Free the graphs and their memory."""
        self._pairs, self._standing = {}, None
        self._pool = torch.cuda.graph_pool_handle()

    def _pair(self, size: Size, numbers: Sequence[Tensor]) -> "_Pair | None":
        """Return the graphs of a size, captured where they are not there yet; None where it has none."""
        if size in self._pairs or len(self._pairs) == MOST_SIZES:
            return self._pairs.get(size)
        if size.tokens > max((one.tokens for one in self._pairs), default=0):
            self._forget()  # the memory of all is that of the longest where it is captured first, and more otherwise
        try:
            self._pairs[size] = self._capture(size, numbers)
        except Exception as error:  # whatever a model does that no graph can hold
            log.warning("forwards are not replayed as CUDA graphs: %s: %s", type(error).__name__, error)
            self._forget()
            self._most_tokens = 0
        if len(self._pairs) == MOST_SIZES:
            log.info("forwards of %d sizes are CUDA graphs; those of further sizes are not replayed", MOST_SIZES)
        return self._pairs.get(size)

    def _capture(self, size: Size, numbers: Sequence[Tensor]) -> "_Pair":
        """Return the graphs of a size.

        Args:
            size: of the padded rows.
            numbers: what a forward reads.
        """
        model = self.stack.model
        static = torch.cat(list(numbers)).to(model.device)
        slopes = torch.zeros(size.spans, device=model.device)
        forward = partial(_distinct_logps, model, static.split([len(one) for one in numbers]), size)

        def backward(logps: Tensor, ranks: Sequence[Tensor]) -> None:
            found = torch.autograd.grad(logps, ranks, slopes)
            torch.cat([one.flatten() for one in found], out=self.gradients)

        # calls of other threads, such as those that load data, do not end a capture
        capturing = partial(torch.cuda.graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local")
        graphs = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with contextlib.ExitStack() as held:
            held.enter_context(torch.cuda.device(model.device))
            held.enter_context(torch.cuda.stream(torch.cuda.current_stream()))  # again after a capture that fails
            held.enter_context(attend_along(model, NAME))
            ranks = held.enter_context(_stand_ins(self.stack))
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                backward(forward(), ranks)  # compiles, and makes what is made at a first call
            torch.cuda.current_stream().wait_stream(self._stream)
            with capturing(graphs[0]):
                logps = forward()
            with capturing(graphs[1]):
                backward(logps, ranks)
        return _Pair(static, graphs[0], logps.detach(), slopes, graphs[1])

    def stand(self) -> int:
        """Return the number of a forward that is now replayed."""
        self._standing = next(self._numbers)
        return self._standing

    def fall(self, number: int) -> None:
        """Let the states of a forward be used up; raise RuntimeError where they are not there."""
        if number != self._standing:
            raise RuntimeError(
                "the states of a replayed forward are gone: another forward came before its backward pass, or it had "
                "one already; model.forwards.graphs: false keeps them"
            )
        self._standing = None


class _Pair(NamedTuple):
    """A forward and its backward pass as graphs, and the tensors by which they are told and tell.

    Args:
        numbers: int64, what the forward reads
        forward: numbers -> logps
        logps: (distinct rows,), float32
        slopes: likewise, the gradient of a loss to them
        backward: slopes -> `AdapterLogps.gradients`
    """

    numbers: Tensor
    forward: torch.cuda.CUDAGraph
    logps: Tensor
    slopes: Tensor
    backward: torch.cuda.CUDAGraph


class _Replayed(torch.autograd.Function):
    """The log-probability of each distinct row as a function of the ranks in training, by a pair of graphs."""

    @staticmethod
    def forward(ctx: Any, owner: AdapterLogps, pair: _Pair, numbers: Tensor, *ranks: Tensor) -> Tensor:
        ctx.owner, ctx.pair, ctx.number = owner, pair, owner.stand()
        # pinned anew each time, as the copy before may still be under way
        pair.numbers.copy_(numbers.pin_memory(), non_blocking=True)
        pair.forward.replay()
        return pair.logps.clone()

    @staticmethod
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor | None, ...]:
        owner, pair = ctx.owner, ctx.pair
        owner.fall(ctx.number)
        pair.slopes.copy_(slopes)
        pair.backward.replay()
        parts = owner.gradients.clone().split([shape.numel() for shape in owner.shapes])  # kept when the next one comes
        return None, None, None, *(part.view(shape) for part, shape in zip(parts, owner.shapes, strict=True))


def _numbers_of(rows: Packed) -> list[Tensor]:
    """Return all that a forward of padded rows reads beside weights: of `Packed` and of `SpanLengths`, in order."""
    lengths = span_lengths(rows.layout, rows.input_ids.device)
    told = [one for one in lengths if isinstance(one, Tensor)]
    return [rows.input_ids[0], rows.positions[0], rows.sources, rows.targets, rows.owners, *told]


def _distinct_logps(model: PreTrainedModel, numbers: Sequence[Tensor], size: Size) -> Tensor:
    """Return the log-probability of each distinct row, (spans,), float32, from `_numbers_of` on the model's device."""
    ids, positions, sources, targets, owners, queries, keys, *shared = numbers
    lengths = SpanLengths(queries.int(), keys.int(), size.longest, size.longest, *shared)
    layout = known_layout(size.tokens, lengths)
    unread = owners[:0]  # a graph gives the distinct rows
    rows = Packed(ids[None], positions[None], sources, targets, owners, unread, size.spans, layout)
    return distinct_logps(model, rows)


@contextlib.contextmanager
def _stand_ins(stack: LoRAStack) -> Iterator[list[nn.Parameter]]:
    """Within the block, parameters that nothing else has used stand in for the ranks in training, in their memory.

    Autograd ties a parameter to the stream where it was first used, and at the end of a backward pass lets that stream
    wait, which no capture on another one can hold.
    """
    before = {layer: (layer.lora_A, layer.lora_B) for layer in stack.layers.values()}
    for layer, ranks in before.items():
        layer.lora_A, layer.lora_B = (None if one is None else nn.Parameter(one.detach()) for one in ranks)
    try:
        yield stack.trained
    finally:
        for layer, ranks in before.items():
            layer.lora_A, layer.lora_B = ranks


def _can_be_captured(stack: LoRAStack) -> bool:
    """Return whether forwards of a model do the same on a GPU each time, without asking the CPU."""
    model = stack.model
    config = model.config.get_text_config()
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    trained = {id(one) for one in stack.trained}
    return (
        model.device.type == "cuda"
        and not is_divided(model.parameters())
        and takes_flash(model.dtype, head, getattr(config, "attn_logit_softcapping", None))
        and {one.device for one in model.parameters()} == {model.device}
        and not is_spread(model)
        and not getattr(model, "is_quantized", False)
        and not any(layer.dropout for layer in stack.layers.values())
        and not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
        and all(id(one) in trained for one in model.parameters() if one.requires_grad)
        and all(one.dtype == torch.float32 for one in stack.trained)
    )
