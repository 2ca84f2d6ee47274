"""Peak memory of a DPO step against the pairs of a step and against the vocabulary, above what the model itself takes.

On a CPU: python -m benchmarks.train_memory
On a GPU: python -m benchmarks.train_memory --layers 32 --width 4096 --step_pairs 2 8 32 --rank 64

The model is random, of a shape that the options give, so that the vocabulary can be of any size. Logits would take
float32 numbers, response tokens of a pair x vocabulary, which no step here ever holds.
"""

import argparse
import gc
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from benchmarks import options
from benchmarks.dpo_peers import Pair
from benchmarks.models import Setting
from benchmarks.scaling import forget_peak, peak
from benchmarks.texts import random_rows
from benchmarks.train import Ours

COLUMNS = ("grows with", "pairs a step", "vocabulary", "model MiB", "step MiB", "logits of a forward MiB", "x first")
MIB = 2**20
HEAD = 64  # width of an attention head


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0 where every limit that is given is kept."""
    args = _arguments(argv)
    setting = options.setting_of(args)
    found: list[dict[str, Any]] = []
    # a process each: memory that one gave back would serve the next one unseen
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        for axis, cells in (
            ("pairs", [(size, args.vocabularies[0]) for size in args.step_pairs]),
            ("vocabulary", [(args.step_pairs[0], size) for size in args.vocabularies]),
        ):
            rows = [{"grows with": axis} | pool.submit(_measure, args, setting, *cell).result() for cell in cells]
            for row in rows:
                row["x first"] = row["step MiB"] / rows[0]["step MiB"]
            found += rows
    return options.finish(args, f"{args.layers} layers of width {args.width}, {setting.device}", COLUMNS, found)


def _measure(args: argparse.Namespace, setting: Setting, count: int, vocabulary: int) -> dict[str, Any]:
    """Take the peak of two steps, the optimizer's state among it, above that of the model alone."""
    torch.manual_seed(0)
    ours = Ours(_model(args, setting, vocabulary), setting, 1, args)
    gc.collect()
    forget_peak(setting.device)
    before = peak(setting.device)
    rows = random_rows(2 * count, 2, args.prompt_tokens, args.response_tokens, vocabulary)
    pairs: list[Pair] = list(zip(rows[::2], rows[1::2], strict=True))
    reference = ours.reference(pairs)
    ours.step({0: pairs[:count]}, reference)
    ours.step({0: pairs[count:]}, reference)
    longest = max(sum(len(row.input_ids) - row.prompt_length for row in pair) for pair in pairs)
    return {
        "pairs a step": count,
        "vocabulary": vocabulary,
        "model MiB": before / MIB,
        "step MiB": (peak(setting.device) - before) / MIB,
        "logits of a forward MiB": 4 * longest * vocabulary / MIB,
    }


def _model(args: argparse.Namespace, setting: Setting, vocabulary: int) -> PreTrainedModel:
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=args.width,
        intermediate_size=4 * args.width,
        num_hidden_layers=args.layers,
        num_attention_heads=args.width // HEAD,
        max_position_embeddings=4096,
        bos_token_id=1,
        eos_token_id=2,
    )
    with setting.device:
        model = AutoModelForCausalLM.from_config(config, dtype=setting.dtype)
    return model.requires_grad_(False).eval()


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = options.plain_parser(__doc__)
    add = parser.add_argument
    add("--device", help="cuda where there is one, else cpu")
    add("--dtype", choices=("float32", "bfloat16"), help="bfloat16 on a GPU, float32 on a CPU")
    add("--rank", type=int, default=16, help="of the adapter")
    add("--layers", type=int, default=8, help="of the model")
    add("--width", type=int, default=512, help="of the model")
    add("--step_pairs", type=int, nargs="+", default=[1, 4, 16], help="pairs of a step; the first is the vocabularies'")
    add("--vocabularies", type=int, nargs="+", default=[8000, 32000, 128000], help="sizes; the first is the pairs'")
    add("--batch_tokens", type=int, help="tokens of a forward; as suits the device where not given")
    add("--prompt_tokens", type=int, nargs=2, default=[60, 60], help="least and most of random prompts")
    add("--response_tokens", type=int, nargs=2, default=[190, 190], help="least and most of random responses")
    options.add_limits(parser, growth="x first")
    parser.set_defaults(shape="given", compile=False, graphs=False)
    return options.parse(parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
