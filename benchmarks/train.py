"""DPO steps beside TRL's trainer and the released way: pairs per second and peak memory; the reference is cached.

On a CPU a way's first step is not counted. On a GPU each way trains on all its pairs once before they are counted.

On a CPU: python -m benchmarks.train
On a GPU: python -m benchmarks.train --shape 7b --pairs 72 --step_pairs 2 8 18 --trl_batches 2 8 18 --compile
"""

import argparse
import gc
import importlib.util
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks import options
from benchmarks.dpo_peers import LEARNING_RATE, Objective, Pair, TRLOptions, counted, released_seconds, trl_seconds
from benchmarks.limits import training_operations
from benchmarks.measuring import clock, matmul_rate, medians
from benchmarks.models import TARGETS, Setting, load_model
from benchmarks.scaling import forget_peak, peak
from benchmarks.texts import random_rows
from sipo_pl.engine.decoding.attention import attend_along
from sipo_pl.engine.logprobs.chunked_backward import summed_over
from sipo_pl.engine.logprobs.cuda_graphs import AdapterLogps
from sipo_pl.engine.logprobs.packed_attention import NAME
from sipo_pl.engine.logprobs.packed_sequences import pack, packed_length, packed_logps
from sipo_pl.engine.logprobs.token_budget import forwards_of, tokens_at_once
from sipo_pl.engine.lora.stack import LoRAStack
from sipo_pl.engine.models.compilation import compile_layers
from sipo_pl.method.losses import dpo_loss, nll_per_token
from sipo_pl.text.templates import Encoded

LOSSES = {"dpo": Objective(beta=0.1), "dpo_nll": Objective(beta=0.1, alpha=0.1)}
OURS, RELEASED = "ours,", "as released"
MATMUL = "matmul"
COLUMNS = (
    "way",
    "pairs measured",
    "pairs/s",
    "peak MiB",
    "x released",
    "x TRL",
    "share of the matmul rate",
)


class Way(NamedTuple):
    """A way to train.

    Args:
        seconds: measures those of a pair
        pairs: on which it does
    """

    seconds: Callable[[], float]
    pairs: int


class Ours:
    """The project's training step over an adapter.

    Args:
        model: the base.
        setting: what it runs on.
        args: token budget, loss, compilation and graphs.
    """

    def __init__(self, model: PreTrainedModel, setting: Setting, args: argparse.Namespace) -> None:
        self.device, self.budget, self.objective = setting.device, args.batch_tokens, LOSSES[args.loss]
        self.stack = LoRAStack(model, TARGETS)
        self.stack.train_ranks(setting.rank, setting.rank, seed=0)
        if args.compile:
            compile_layers(model)
        self.logps = AdapterLogps(self.stack, args.graphs)
        self.optimizer = torch.optim.AdamW(self.stack.trained, lr=LEARNING_RATE, fused=True)

    def step(self, pairs: Sequence[Pair], reference: dict[int, Tensor]) -> None:
        """Train on pairs."""
        budget = self.budget or tokens_at_once(self.stack.model, checkpointing=False)
        parts = [[pairs[index] for index in part] for part in forwards_of(pairs, budget)]
        total = summed_over([partial(self._loss, part, reference) for part in parts], self.stack.trained)
        (total / len(pairs)).backward()
        torch.nn.utils.clip_grad_norm_(self.stack.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _loss(self, pairs: Sequence[Pair], reference: dict[int, Tensor]) -> Tensor:
        known = torch.stack([reference[id(pair)] for pair in pairs], dim=1)
        chosen, rejected = self.logps(_rows(pairs), self.device).chunk(2)
        losses = dpo_loss(chosen, rejected, *known, beta=self.objective.beta).losses
        if self.objective.alpha:
            lengths = torch.tensor([chosen.response_length for chosen, _ in pairs], device=self.device)
            losses = losses + self.objective.alpha * nll_per_token(chosen, lengths)
        return losses.sum()

    def reference(self, pairs: Sequence[Pair]) -> dict[int, Tensor]:
        """Return the log-probabilities of each pair under the base, as the cache on disk holds them."""
        model = self.stack.model
        with torch.no_grad(), self.stack.reference(), attend_along(model, NAME):
            return {id(one): packed_logps(model, pack(one).to(self.device)) for one in pairs}


def _rows(pairs: Sequence[Pair]) -> list[Encoded]:
    """Return the rows of pairs, chosen ones first."""
    return [row for side in zip(*pairs, strict=True) for row in side]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0 where every target that is given is met."""
    args = _arguments(argv)
    setting = options.setting_of(args)
    pairs = _pairs(args, 300 if args.shape == "tiny" else 32000)
    measured = {size: counted(setting.device, len(pairs), size) for size in args.step_pairs}
    ways = {
        f"ours, {size} pairs a step": Way(partial(_ours, args, setting, pairs, size), count)
        for size, count in measured.items()
    }
    ways |= _peers(args, setting, pairs)
    ways = {name: way for name, way in ways.items() if name.startswith(tuple(args.only))}
    peaks = dict.fromkeys(ways, math.inf)  # least over the rounds: what the ways before leave behind only adds

    def seconds(name: str) -> float:
        print(f"{name} …", flush=True)
        gc.collect()
        forget_peak(setting.device)
        start = time.perf_counter()
        try:
            taken = ways[name].seconds()
        except torch.OutOfMemoryError:
            print("out of memory: its row is left out", flush=True)
            return math.inf
        peaks[name] = min(peaks[name], peak(setting.device) / 2**20)
        whole = time.perf_counter() - start
        print(f"{1 / taken:.4g} pairs/s, peak {peaks[name]:,.0f} MiB, {whole:.0f} s with its start", flush=True)
        return taken

    measures = {name: partial(seconds, name) for name in ways}
    measures[MATMUL] = lambda: 1 / matmul_rate(setting.device, setting.dtype)
    taken = medians(measures, args.repeats)
    work = _operations(setting, pairs) * taken[MATMUL] / len(pairs)
    found = [
        {"way": name, "pairs measured": way.pairs, "pairs/s": 1 / taken[name], "peak MiB": peaks[name]}
        | ({"share of the matmul rate": work / taken[name]} if name.startswith(OURS) else {})
        for name, way in ways.items()
        if taken[name] < math.inf
    ]
    _compare(found)
    mean = sum(len(row.input_ids) for pair in pairs for row in pair) / len(pairs)
    return options.finish(args, setting.title, COLUMNS, found, tokens_of_a_pair=mean, loss=args.loss)


def _compare(found: Sequence[dict[str, Any]]) -> None:
    """Add ratios of speed."""
    speed = {one["way"]: one["pairs/s"] for one in found}
    trl = max((value for name, value in speed.items() if name.startswith("TRL")), default=None)
    for one in found:
        if one["way"].startswith(OURS):
            if RELEASED in speed:
                one["x released"] = one["pairs/s"] / speed[RELEASED]
            if trl:
                one["x TRL"] = one["pairs/s"] / trl


def _pairs(args: argparse.Namespace, vocabulary: int) -> list[Pair]:
    rows: list[Encoded] = random_rows(args.pairs, 2, args.prompt_tokens, args.response_tokens, vocabulary)
    return list(zip(rows[::2], rows[1::2], strict=True))


def _ours(args: argparse.Namespace, setting: Setting, pairs: Sequence[Pair], size: int) -> float:
    """Train on all pairs; return the seconds of a pair of those that are counted."""
    ours = Ours(load_model(setting), setting, args)
    reference = ours.reference(pairs)
    steps = [pairs[start : start + size] for start in range(0, len(pairs), size)]
    # before a GPU's clock runs, the longest first, whose graphs' memory then serves all
    for step in sorted(steps, key=_tokens, reverse=True) if ours.device.type == "cuda" else ():
        ours.step(step, reference)
    count = counted(ours.device, len(pairs), size)
    seconds = [clock(partial(ours.step, step, reference), ours.device) for step in steps]
    return sum(seconds if count == len(pairs) else seconds[1:]) / count


def _tokens(pairs: Sequence[Pair]) -> int:
    return packed_length(_rows(pairs))


def _operations(setting: Setting, pairs: Sequence[Pair]) -> float:
    """Return the operations that one adapter's step over all pairs needs."""
    model = load_model(setting)
    LoRAStack(model, TARGETS).train_ranks(setting.rank, setting.rank, seed=0)
    return training_operations(model, pairs)


def _peers(args: argparse.Namespace, setting: Setting, pairs: Sequence[Pair]) -> dict[str, Way]:
    ways: dict[str, Way] = {}
    if importlib.util.find_spec("trl") is None:
        print("trl is not installed (the extra bench): its rows are left out")
    else:
        swept = [TRLOptions(batch, True) for batch in args.trl_batches]
        swept += [TRLOptions(args.trl_batches[0], False)]
        if importlib.util.find_spec("liger_kernel") is not None and setting.device.type == "cuda":
            swept += [TRLOptions(batch, True, liger=True) for batch in args.trl_batches]
        for way in swept:
            seconds = partial(trl_seconds, setting, pairs, way, LOSSES[args.loss])
            ways[f"TRL, {way.name}"] = Way(seconds, counted(setting.device, len(pairs), way.batch))
    few = pairs[: 1 + args.released_pairs]
    released = partial(released_seconds, setting, few, LOSSES[args.loss])
    ways[RELEASED] = Way(released, counted(setting.device, len(few), 1))
    return ways


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = options.parser(__doc__)
    add = parser.add_argument
    add("--pairs", type=int, default=8, help="number of pairs")
    add("--prompt_tokens", type=int, nargs=2, default=[60, 60], help="least and most of random prompts")
    add("--response_tokens", type=int, nargs=2, default=[126, 206], help="least and most of random responses")
    add("--loss", choices=sorted(LOSSES), default="dpo", help="dpo_nll adds the NLL term of re-alignment")
    add("--only", nargs="+", default=[""], help="ways to run, by how their names begin; all where not given")
    add("--step_pairs", type=int, nargs="+", default=[2], help="pairs of an optimizer step of ours")
    add("--batch_tokens", type=int, help="tokens of a forward of ours; as suits the device where not given")
    add("--trl_batches", type=int, nargs="+", default=[1, 2, 4], help="batch sizes that TRL is swept over")
    add("--released_pairs", type=int, default=3, help="pairs that the released way is measured on")
    add("--compile", action="store_true", help="compile the layers of ours")
    as_graphs = "replay short forwards of ours as CUDA graphs"
    add("--graphs", action=argparse.BooleanOptionalAction, default=True, help=as_graphs)
    options.add_targets(parser, released="x released", trl="x TRL", matmul="share of the matmul rate")
    return options.parse(parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
