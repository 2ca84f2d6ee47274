"""Implicit rewards of seven models beside plain peft, with and without prompts that responses share.

On a CPU: python -m benchmarks.reward --data configs/quickstart/data/train.jsonl
On a GPU: python -m benchmarks.reward --shape 7b --prompts 64 --batch_tokens 65536 131072 --batches 8 16 32
"""

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from peft import PeftModel
from torch import Tensor

from benchmarks import options
from benchmarks.limits import scoring_operations
from benchmarks.measuring import Run, fastest, interleaved, matmul_rate
from benchmarks.models import Ours, Peer, Setting
from benchmarks.peers import rewards_with_peft
from benchmarks.texts import scored_rows, without_sharing
from sipo_pl.engine.lora.adapters import Factors, interpolate
from sipo_pl.engine.lora.policies import PolicySet
from sipo_pl.engine.models.compilation import compile_layers
from sipo_pl.method.divergences import ReverseKL
from sipo_pl.rewards.implicit import implicit_rewards
from sipo_pl.text.templates import Encoded

BETA = 0.1
PAIR_POINTS = [(w, 1 - w) for w in (0.2, 0.4, 0.6, 0.8)]
ALONE = "ours, no prompt shared"
COLUMNS = ("way", "rows measured", "batch", "responses/s", "x released", "x peft", "share of the matmul rate")


class Work(NamedTuple):
    """What is scored, and who scores it.

    Args:
        setting: model and device
        ours: the project's policies
        peer: the same in plain peft
        factors: their adapters
        rows: prompts with several responses each
        few: the first rows, which plain peft is measured on
    """

    setting: Setting
    ours: PolicySet
    peer: PeftModel
    factors: Sequence[Factors]
    rows: Sequence[Encoded]
    few: Sequence[Encoded]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0 where every target that is given is met."""
    args = _arguments(argv)
    setting = options.setting_of(args)
    ours = Ours(setting)
    aligned = ours.random_factors(3)
    factors = [*aligned, *(interpolate(aligned[:2], point) for point in PAIR_POINTS)]
    if args.compile:
        compile_layers(ours.model)
    rows = scored_rows(args, ours.model.config.vocab_size)
    work = Work(setting, ours.policies(factors), Peer(setting).policies(factors), factors, rows, rows[: args.peer_rows])
    found, gap = _compare(args, work)
    mean = sum(len(row.input_ids) for row in rows) / len(rows)
    prompts = len({tuple(row.input_ids[: row.prompt_length]) for row in rows})
    notes = {"largest_difference_to_peft": gap, "tokens_of_a_row": mean, "prompts": prompts, "models": len(factors)}
    return options.finish(args, setting.title, COLUMNS, found, **notes)


def _compare(args: argparse.Namespace, work: Work) -> tuple[list[dict[str, Any]], float]:
    """Time all ways; return a row of the table for each, and the largest difference of a reward to peft's."""
    few, models, released = work.few, len(work.factors), work.few[: args.released_rows]
    texts = {"ours": work.rows, ALONE: without_sharing(work.rows), "peft": few, "as released": released}
    rewards: dict[str, Tensor] = {}

    def score(name: str, rows: Sequence[Encoded], batch_tokens: int) -> None:
        rewards[name] = implicit_rewards(work.ours, models, rows, ReverseKL(), BETA, batch_tokens)

    tokens, batch = _best_batches(args, work)
    runs: dict[str, Run] = {
        "ours": partial(score, "ours", texts["ours"], tokens),
        ALONE: partial(score, ALONE, texts[ALONE], tokens),
        "peft": lambda: rewards.update(peft=rewards_with_peft(work.peer, models, few, BETA, batch, False)),
        "as released": partial(rewards_with_peft, work.peer, models, released, BETA, 1, True),
    }
    if work.setting.device.type == "cuda":
        runs["ours"]()  # kernels are chosen, and compiled, at a first call
    seconds = interleaved(runs, work.setting.device, args.repeats)
    gap = (rewards["ours"][:, : len(few)] - rewards["peft"].cpu()).abs().max().item()
    speed = {name: len(rows) / seconds[name] for name, rows in texts.items()}
    sizes = {"ours": f"{tokens} tokens", ALONE: f"{tokens} tokens", "peft": batch, "as released": 1}
    peak = matmul_rate(work.setting.device, work.setting.dtype)
    found = []
    for name, rows in texts.items():
        one = {"way": name, "rows measured": len(rows), "batch": sizes[name], "responses/s": speed[name]}
        if name in ("ours", ALONE):
            work_done = scoring_operations(work.ours.stacks[0].model, work.factors, rows, models + 1)
            one["share of the matmul rate"] = work_done / seconds[name] / peak
        if name == "ours":
            one |= {"x released": speed[name] / speed["as released"], "x peft": speed[name] / speed["peft"]}
        found.append(one)
    return found, gap


def _best_batches(args: argparse.Namespace, work: Work) -> tuple[int, int]:
    """Return the fastest token budget of ours and the fastest batch size of peft."""
    models, device = len(work.factors), work.setting.device
    tokens = fastest(
        args.batch_tokens, lambda size: implicit_rewards(work.ours, models, work.rows, ReverseKL(), BETA, size), device
    )
    batch = fastest(
        args.batches, lambda size: rewards_with_peft(work.peer, models, work.few, BETA, size, False), device
    )
    return tokens, batch


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = options.parser(__doc__)
    options.add_row_options(parser, 4, 5, [128, 384])
    add = parser.add_argument
    add("--batch_tokens", type=int, nargs="+", default=[8192, 32768], help="budgets that ours is swept over")
    add("--batches", type=int, nargs="+", default=[1, 4], help="batch sizes that peft is swept over")
    add("--peer_rows", type=int, default=4, help="rows that peft is measured on")
    add("--released_rows", type=int, default=1, help="rows that the released way is measured on")
    add("--compile", action="store_true", help="compile the layers of ours")
    options.add_targets(parser, released="x released", peft="x peft", matmul="share of the matmul rate")
    return options.parse(parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
