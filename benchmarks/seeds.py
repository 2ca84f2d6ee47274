"""Comparisons of several seeds over the same test prompts: their hypervolumes, gains over one method, and the mean.

    python -m benchmarks.seeds runs/tradeoff/detail-ease-1 runs/tradeoff/detail-ease-2 --against mod --out seeds.csv

The ruler is the first folder's. Intervals are 95 % bootstrap intervals of the mean over seeds and prompts, of which
both are drawn anew: so few seeds make them a rough guide, and every seed's own number stands beside. Longer answers
have more room for some objectives: `--first_words 40` measures the beginnings alone, by the formulas.
`--beside strong runs/tradeoff/strong-1 …` adds the methods of the same seeds with other settings, as `strong mod`.
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.tradeoff import FORMULAS
from sipo_pl.data.units import read_units
from sipo_pl.messages.errors import UserError
from sipo_pl.metrics.hypervolume import Frame, hypervolume
from sipo_pl.metrics.intervals import LEVEL
from sipo_pl.recipe.recipe import RunLayout
from sipo_pl.report.comparison.answers import Answers, read_answers, rewards_by_method
from sipo_pl.report.comparison.ruler import ruler
from sipo_pl.report.comparison.tables import write_csv
from sipo_pl.report.plain_tables import markdown_table
from sipo_pl.report.tables import number
from sipo_pl.rewards import text
from sipo_pl.storage.json_lines import read_json
from sipo_pl.text.prompt import TextRow

Rewards = Mapping[str, NDArray[np.float64]]  # method -> (prompts, points, objectives)


class Measured(NamedTuple):
    """A method's answers in one run.

    Args:
        rewards: (prompts, points, objectives)
        points: the answers at each point
        prompts: ids of what was answered
    """

    rewards: NDArray[np.float64]
    points: list[Answers]
    prompts: frozenset[str]


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table and write it."""
    args = _arguments(argv)
    stored = read_json(RunLayout(args.runs[0]).frame)
    objectives = list(stored["objectives"])
    seeds: list[dict[str, Measured]] = [{} for _ in args.runs]
    for label, *runs in (("", *args.runs), *args.beside):
        for seed, run in zip(seeds, map(Path, runs), strict=True):
            seed |= measured(run, objectives, args.first_words, label)
            if len({one.prompts for found in seeds for one in found.values()}) > 1:
                raise UserError(f"{run}: answers to other test prompts")
    methods = [name for name in seeds[0] if all(name in one for one in seeds)]
    rewards = [{name: one.rewards for name, one in seed.items()} for seed in seeds]
    found = summarise(rewards, methods, ruler(stored, ()).frame, args.against, args.resamples)
    for row in found:
        points = [one for seed in seeds for one in seed[row["method"]].points]
        row |= {"nats": float(np.mean([one.kl.mean() for one in points]))}
        row |= {"words": float(np.mean([one.words.mean() for one in points]))}
        row |= {"finished": float(np.mean([one.finished for one in points]))}
        row |= {"collapsed": float(np.mean([one.collapsed for one in points]))}
    if args.out:
        write_csv(args.out, found)
    print(markdown_table(list(found[0]), [[_text(value) for value in row.values()] for row in found]))


def measured(run: Path, objectives: Sequence[str], first_words: int | None, label: str) -> dict[str, Measured]:
    """Return the methods of a run folder, `label` before their names."""
    rows = read_units(run / "judge")
    prompts = frozenset(row["prompt_id"] for row in rows)
    answers = read_answers(rows, objectives)
    rewards = of_beginnings(run, objectives, first_words) if first_words else rewards_by_method(answers)
    points = {name: [one for key, one in answers.items() if key[0] == name] for name in rewards}
    return {f"{label} {name}".strip(): Measured(rewards[name], points[name], prompts) for name in rewards}


def summarise(
    rewards: Sequence[Rewards], methods: Sequence[str], frame: Frame, against: str, resamples: int
) -> list[dict[str, Any]]:
    """Return a row a method: hypervolume of each seed, gain over `against` of each seed, and their means.

    Args:
        rewards: of each seed, all over the same prompts in the same order.
        methods: rows of the table.
        frame: ruler of all seeds.
        against: the method that the others are compared with.
        resamples: draws of the bootstrap.
    """

    def volumes(rows: NDArray[np.int64] | slice) -> NDArray[np.float64]:
        """Return (seeds, methods)."""
        means = [[one[name][rows].mean(axis=0) for name in methods] for one in rewards]
        return np.array([[hypervolume(points, frame.reference, frame.scale) for points in seed] for seed in means])

    rng = np.random.default_rng(0)
    prompts, base = len(rewards[0][methods[0]]), methods.index(against)
    estimate, drawn = volumes(slice(None)), []
    for _ in range(resamples):
        sample = volumes(rng.integers(prompts, size=prompts))
        drawn.append(sample[rng.integers(len(rewards), size=len(rewards))].mean(axis=0))
    gains = np.array(drawn) - np.array(drawn)[:, [base]]
    low, high = np.quantile(gains, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    table = []
    for place, name in enumerate(methods):
        gain = estimate[:, place] - estimate[:, base]
        row: dict[str, Any] = {"method": name}
        row |= {f"hypervolume {seed}": value for seed, value in enumerate(estimate[:, place], 1)}
        row |= {f"gain {seed}": value for seed, value in enumerate(gain, 1)}
        table.append({**row, "mean gain": gain.mean(), "low": low[place], "high": high[place]})
    return table


def of_beginnings(run: Path, objectives: Sequence[str], count: int) -> Rewards:
    """Return what the formulas say of the first words of each answer."""
    formulas = [getattr(text, FORMULAS[name])() for name in objectives]
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for row in read_units(run / "answer"):
        cut = re.match(rf"(?:\s*\S+){{0,{count}}}", row["text"])
        rows = [TextRow(row["prompt"], cut.group() if cut else "")]
        values = [formula.score(rows)[0] for formula in formulas]
        found.setdefault(row["method"], {}).setdefault(row["point"], {})[row["prompt_id"]] = values
    prompts = sorted(next(iter(next(iter(found.values())).values())))
    return {
        method: np.array([[values[prompt] for values in points.values()] for prompt in prompts])
        for method, points in found.items()
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else number(value)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("runs", type=Path, nargs="+", help="run folders of the same comparison with other seeds")
    add("--against", default="mod", help="the method that the others are compared with")
    add("--first_words", type=int, help="measure that many words of each answer, by the formulas of `tradeoff`")
    add("--resamples", type=int, default=2000, help="draws of the bootstrap")
    add("--out", type=Path, help="CSV file for the table")
    add("--beside", nargs="+", action="append", default=[], metavar="WORD", help="a name and a run folder of each seed")
    args = parser.parse_args(argv)
    if wrong := [label for label, *runs in args.beside if len(runs) != len(args.runs)]:
        parser.error(f"--beside {wrong[0]}: give as many run folders as seeds, {len(args.runs)}")
    if len({"", *(label for label, *_ in args.beside)}) <= len(args.beside):
        parser.error("--beside: each needs a name of its own")
    return args


if __name__ == "__main__":
    main()
