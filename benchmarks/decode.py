"""MOD decoding beside its peers: all the time of a run counted, and a step against what the memory allows.

On a CPU: python -m benchmarks.decode --data configs/quickstart/data/train.jsonl
On a GPU: python -m benchmarks.decode --shape 7b --rows 16 64 128 256 --policies 2 3 5
"""

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from peft import PeftModel

from benchmarks import options
from benchmarks.limits import step_bytes
from benchmarks.measuring import Run, clock, copy_rate, fastest, interleaved
from benchmarks.models import Ours, Peer, Setting
from benchmarks.peers import fuse_as_released, fuse_in_batches, generate_one_policy
from benchmarks.texts import POINTS, behind_header, prompt_requests, random_prompts, real_prompts
from sipo_pl.engine.decoding.fused_rows import FusedRows, Fusion
from sipo_pl.engine.decoding.generation import generate
from sipo_pl.engine.decoding.options import Decoding, Request
from sipo_pl.engine.decoding.slot_sizes import SlotSizes
from sipo_pl.engine.lora.adapters import Factors
from sipo_pl.engine.lora.policies import PolicySet
from sipo_pl.engine.models.compilation import compile_layers
from sipo_pl.method.divergences import ReverseKL
from sipo_pl.method.fusion import next_tokens

NO_EOS = -1  # no such token: every row runs to its limit
LONGEST = 4096
COLUMNS = (
    "policies",
    "rows",
    "ours tok/s",
    "as released",
    "peft",
    "peft batch",
    "generate of one",
    "generate batch",
    "x released",
    "x peft",
    "x generate",
    "prefill s",
    "step ms",
    "step over floor",
    "step over shared floor",
)


class Work(NamedTuple):
    """The rows of a comparison, and who decodes them.

    Args:
        setting: model and device
        ours: the project's policies
        peer: the same in plain peft
        factors: their adapters
        requests: the rows
        header: tokens that all prompts share on purpose
        copied: bytes per second of a copy
    """

    setting: Setting
    ours: PolicySet
    peer: PeftModel
    factors: Sequence[Factors]
    requests: Sequence[Request]
    header: int
    copied: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0 where every target that is given is met."""
    args = _arguments(argv)
    setting = options.setting_of(args)
    ours, peer = Ours(setting), Peer(setting)
    if args.compile:
        compile_layers(ours.model)
    drawn = ours.random_factors(max(args.policies))
    copied = copy_rate(setting.device, setting.dtype)
    found = []
    for count in sorted(args.policies):  # peft switches more slowly with more adapters: it gets no more than it needs
        factors = drawn[:count]
        policies, adapted = ours.policies(factors), peer.policies(factors)
        for rows in args.rows:
            requests = prompt_requests(_prompts(args, rows, ours.model.config.vocab_size), count)
            work = Work(setting, policies, adapted, factors, requests, args.common_header, copied)
            found.append({"policies": count, "rows": len(requests)} | _compare(args, work) | _step(args, work))
            print({key: round(v, 4) if isinstance(v, float) else v for key, v in found[-1].items()}, flush=True)
    notes = {"common_header": args.common_header, "copy_bytes_per_s": copied, "tokens": args.tokens}
    return options.finish(args, setting.title, COLUMNS, found, **notes)


def _prompts(args: argparse.Namespace, rows: int, vocabulary: int) -> list[tuple[int, ...]]:
    count = max(1, rows // len(POINTS))
    found = real_prompts(args.data, count) if args.data else random_prompts(count, *args.prompt_tokens, vocabulary)
    return behind_header(found, args.common_header, vocabulary)


def _compare(args: argparse.Namespace, work: Work) -> dict[str, Any]:
    """Time whole runs of ours and of the peers, prompts and all."""
    requests, device = work.requests, work.setting.device
    some, few = requests[: args.peer_rows], requests[: args.released_rows]
    fused, alone = _best_batches(args, work.peer, some, device)
    decoding = Decoding(max_length=LONGEST, max_new_tokens=args.tokens, batch_rows=len(requests))
    texts: dict[str, list[list[int]]] = {}

    def run_ours() -> None:
        found = generate(work.ours, requests, decoding, ReverseKL(), NO_EOS, 0)
        texts["ours"] = [one.token_ids for one in found]

    runs: dict[str, Run] = {
        "ours": run_ours,
        "released": partial(fuse_as_released, work.peer, few, args.released_tokens),
        "peft": lambda: texts.update(peft=fuse_in_batches(work.peer, some, args.tokens, fused)),
        "generate": partial(generate_one_policy, work.peer, some, args.tokens, alone),
    }
    run_ours()  # compiles, where it compiles
    seconds = interleaved(runs, device, args.repeats)
    made = dict.fromkeys(runs, len(some) * args.tokens)
    made |= {"ours": len(requests) * args.tokens, "released": len(few) * args.released_tokens}
    speed = {name: made[name] / seconds[name] for name in runs}
    equal = [a == b for a, b in zip(texts["ours"], texts["peft"], strict=False)]
    return {
        "ours tok/s": speed["ours"],
        "as released": speed["released"],
        "peft": speed["peft"],
        "peft batch": fused,
        "generate of one": speed["generate"],
        "generate batch": alone,
        **{f"x {name}": speed["ours"] / speed[name] for name in ("released", "peft", "generate")},
        "texts equal to peft's": sum(equal) / len(equal),
    }


def _best_batches(
    args: argparse.Namespace, peer: PeftModel, requests: Sequence[Request], device: torch.device
) -> tuple[int, int]:
    """Return the fastest batch sizes of peft's fusion and of generate, on a few tokens of the peers' rows."""
    batches = [batch for batch in args.batches if batch <= len(requests)] or [len(requests)]

    def sweep(run: Any) -> int:
        return fastest(batches, lambda batch: run(peer, requests, args.sweep_tokens, batch), device)

    return sweep(fuse_in_batches), sweep(generate_one_policy)


@torch.inference_mode()
def _step(args: argparse.Namespace, work: Work) -> dict[str, float]:
    """Time the prompts and a later step apart, and set the step against the bytes that it must read."""
    device, steps = work.setting.device, max(1, args.tokens - 1)
    requests = sorted(work.requests, key=lambda one: (-len(one.prompt_ids), one.prompt_ids))  # as `generate` has them
    zeros = torch.zeros(len(requests), device=device)
    with work.ours.active(range(len(work.factors))) as forward:
        made: list[FusedRows] = []

        def prefill() -> None:
            sizes = SlotSizes.of([one.prompt_ids for one in requests], len(requests), args.tokens + 1)
            made.append(FusedRows(Fusion(forward, ReverseKL()), sizes))
            made[-1].admit(range(len(requests)), requests)

        def step() -> None:
            made[-1].advance(next_tokens(made[-1].scores(), zeros, 0.0, 1.0))

        before = clock(prefill, device)
        step()  # makes the graph, on a GPU
        taken = clock(lambda: [step() for _ in range(steps)], device) / steps
    read = step_bytes(work.ours.stacks[0].model, work.factors, requests, work.header, behind=args.tokens / 2)
    floor, shared = ((read.weights + cache) / work.copied for cache in (read.cache_alone, read.cache_shared))
    return {
        "prefill s": before,
        "step ms": taken * 1e3,
        "floor ms, a cache each": floor * 1e3,
        "floor ms, prompts shared": shared * 1e3,
        "step over floor": taken / floor,
        "step over shared floor": taken / shared,
    }


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = options.parser(__doc__)
    options.add_text_options(parser, "prompts")
    add = parser.add_argument
    add("--policies", type=int, nargs="+", default=[2], help="numbers of policies fused")
    add("--rows", type=int, nargs="+", default=[64], help="prompts x 4 weights, decoded at once by ours")
    add("--tokens", type=int, default=32, help="of each response")
    add("--common_header", type=int, default=0, help="random tokens that all prompts begin with, as in review prompts")
    add("--batches", type=int, nargs="+", default=[16, 32, 64], help="batch sizes that peers are swept over")
    add("--peer_rows", type=int, help="rows that peers in batches are measured on (default: all)")
    add("--sweep_tokens", type=int, default=8, help="of a response in a sweep")
    add("--released_rows", type=int, default=2, help="rows that the slowest peer is measured on")
    add("--released_tokens", type=int, default=32, help="of each of its responses")
    add("--compile", action="store_true", help="compile the layers of ours")
    options.add_targets(parser, released="x released", peft="x peft", generate="x generate")
    return options.parse(parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
