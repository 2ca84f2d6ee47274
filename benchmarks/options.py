"""Options that the scripts share, and how each ends: a table, a file, and the targets that it missed."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import table, versions
from benchmarks.models import SHAPES, Setting
from sipo_pl.storage.json_lines import write_json


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of the options that every script with a model takes."""
    made = plain_parser(description)
    add = made.add_argument
    add(
        "--shape",
        choices=SHAPES,
        default="smollm2",
        help="smollm2: the real model; random: 7b of Llama-2-7B's shape, 1b",
    )
    add("--device", help="cuda where there is one, else cpu")
    add("--dtype", choices=("float32", "bfloat16"), help="bfloat16 on a GPU, float32 on a CPU")
    add("--rank", type=int, default=64, help="of the adapters")
    return made


def plain_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of the options of every script."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--repeats", type=int, default=3, help="interleaved runs, of which the median counts")
    made.add_argument("--json", type=Path, help="file for the results")
    return made


def add_text_options(made: argparse.ArgumentParser, data: str) -> None:
    """Add options of the texts."""
    made.add_argument("--data", type=Path, help=f"JSONL with {data} for smollm2; random tokens where not given")
    made.add_argument("--prompt_tokens", type=int, nargs=2, default=[64, 384], help="least and most of random prompts")


def add_row_options(made: argparse.ArgumentParser, prompts: int, responses: int, longest: Sequence[int]) -> None:
    """Add options of prompts with responses, with their defaults."""
    add_text_options(made, "prompts and responses")
    made.add_argument("--prompts", type=int, default=prompts, help="number of prompts")
    made.add_argument("--responses", type=int, default=responses, help="to each prompt")
    made.add_argument(
        "--response_tokens", type=int, nargs=2, default=longest, help="least and most of random responses"
    )


def add_targets(made: argparse.ArgumentParser, **columns: str) -> None:
    """Add an option `--least_NAME` for each column that a target is set for; the column's values must reach it."""
    for name, column in columns.items():
        made.add_argument(f"--least_{name}", type=float, metavar="RATIO", help=f"target of '{column}'")
    made.set_defaults(least=columns)


def add_limits(made: argparse.ArgumentParser, **columns: str) -> None:
    """Add an option `--most_NAME` for each column whose values must not exceed it."""
    for name, column in columns.items():
        made.add_argument(f"--most_{name}", type=float, metavar="VALUE", help=f"limit of '{column}'")
    made.set_defaults(most=columns)


def parse(made: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse, and refuse what does not go together."""
    args = made.parse_args(argv)
    if getattr(args, "data", None) and args.shape != "smollm2":
        made.error(f"--data: texts are tokenized for smollm2, not for --shape {args.shape}")
    return args


def setting_of(args: argparse.Namespace) -> Setting:
    """Return where and on what to run."""
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = args.dtype or ("bfloat16" if device.type == "cuda" else "float32")
    return Setting(args.shape, device, getattr(torch, dtype), args.rank)


def finish(
    args: argparse.Namespace, title: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], **more: Any
) -> int:
    """Print the rows' table and the targets that were missed, write the results; return 1 where one was, else 0."""
    missed = _missed(args, rows)
    print(f"\n{title}; {versions()}\n\n{table(columns, [[row.get(name, '') for name in columns] for row in rows])}\n")
    for name, value in more.items():
        print(f"{name.replace('_', ' ')}: {value}")
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.json, {"setting": title, "versions": versions(), "rows": rows, "missed": missed, **more})
    print("\n".join(f"missed: {line}" for line in missed) or "every target met")
    return int(bool(missed))


def _missed(args: argparse.Namespace, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each value on the wrong side of its target; one that is no number is on the wrong side."""
    lines = []
    for kind, sign, word in (("least", 1, "at least"), ("most", -1, "at most")):
        for name, column in getattr(args, kind, {}).items():
            bound = getattr(args, f"{kind}_{name}")
            values = [row[column] for row in rows if bound is not None and column in row]
            lines += [
                f"{column}: {value:.3g}, target {word} {bound:g}" for value in values if not sign * (value - bound) >= 0
            ]
    return lines
