"""The CPU set, on SmolLM2, with its targets: `make bench`, about half an hour on two cores.

python -m benchmarks --data configs/quickstart/data/train.jsonl --json runs/bench
"""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from benchmarks import decode, fidelity, reward, scaling, startup, train

SET = {
    "decode": (
        decode.main,
        "--device cpu --data {data} --rows 64 --tokens 32 --peer_rows 32 --batches 16 32 "
        "--released_rows 1 --released_tokens 16 --least_released 28 --least_peft 3 --least_generate 1.2",
    ),
    "reward": (
        reward.main,
        "--device cpu --data {data} --prompts 3 --responses 5 --peer_rows 4 --least_released 2.4 --least_peft 1.3",
    ),
    "fidelity": (fidelity.main, "--device cpu --data {data} --prompts 3 --dtype float32 --most_difference 1e-4"),
    "scaling": (
        scaling.main,
        "--device cpu --rows 8 16 24 32 --batch_rows 8 --policies 1 2 3 4 --tokens 8 --out {json} "
        "--repeats 3 --least_r2 0.98 --most_growth 1.1",
    ),
    "train": (train.main, "--device cpu --pairs 8 --least_released 2 --least_trl 1.8"),
    "startup": (startup.main, "--repeats 1"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the set; return 0 where every target of every script is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="JSONL with prompts and responses")
    parser.add_argument("--json", type=Path, default=Path("runs/bench"), help="folder for results and the plot")
    args = parser.parse_args(argv)
    missed = []
    for name, (run, words) in SET.items():
        print(f"\n== {name}", flush=True)
        given = shlex.split(words.format(data=shlex.quote(str(args.data)), json=shlex.quote(str(args.json))))
        if run([*given, "--json", str(args.json / f"{name}.json")]):
            missed.append(name)
    print(f"\ntargets missed in: {', '.join(missed)}" if missed else "\nevery target of the set met")
    return int(bool(missed))


if __name__ == "__main__":
    raise SystemExit(main())
