"""Makes the embedded quickstart data: responses of a small model to own prompts, scored on detail and ease.

    python -m tools.quickstart_data --out configs/quickstart/data --model <folder of SmolLM2-135M-Instruct>

Every prompt is answered once under each instruction of `quickstart_sampler.STYLES`, which is not part of the data.
Answers that are cut, very short, repeating, questions or about the instruction are drawn anew.
"""

import argparse
import json
import random
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from sipo_pl.messages.errors import UserError
from sipo_pl.rewards.text import detail, reading_grade, words
from sipo_pl.storage.json_lines import write_jsonl
from tools.quickstart_sampler import STYLES, Answer, Job, Sampler

MIN_WORDS = 5

_ENDS = re.compile(r"[.!][\"'”’)*]*$")
_ABOUT_INSTRUCTION = re.compile(
    r"\bsentences?\b|\bfive[- ]year[- ]old|\bprecise terms\b|\bfacts and examples\b|\bone-word\b"
    r"|\byour (?:question|request)\b|\b(?:AI|language) (?:assistant|model)\b",
    re.IGNORECASE,
)


def usable(text: str) -> bool:
    """Return whether `text` is fit for the data: whole, one paragraph, no question, no loop, not on the instruction."""
    found = words(text)
    triples = Counter(zip(found, found[1:], found[2:], strict=False))
    return (
        len(found) >= MIN_WORDS
        and "\n" not in text
        and _ENDS.search(text) is not None
        and _ABOUT_INSTRUCTION.search(text) is None
        and max(triples.values()) < 3
    )


def scores(text: str) -> dict[str, float]:
    """Return the two attributes of a response, larger is better, rounded to 3 decimals."""
    return {"detail": round(detail(text), 3), "ease": round(0.0 - reading_grade(text), 3)}


def batches(sampler: Sampler, jobs: Iterable[Job], rows: int) -> Iterator[list[Job]]:
    """Yield the jobs in batches of at most `rows`, similar lengths together."""
    ordered = sorted(jobs, key=lambda job: (len(sampler.chat(job)), job))
    for start in range(0, len(ordered), rows):
        yield ordered[start : start + rows]


def collect(sampler: Sampler, prompts: Sequence[str], tries: int, rows: int) -> dict[str, dict[str, Answer]]:
    """Return the usable, distinct answers of every prompt by style, after up to `tries` draws of each.

    The first round draws every style; later rounds draw what is missing.
    """
    kept: dict[str, dict[str, Answer]] = {prompt: {} for prompt in prompts}
    for attempt in range(tries):
        jobs = [Job(prompt, style, attempt) for prompt in prompts for style in STYLES if style not in kept[prompt]]
        counts: Counter[str] = Counter()
        for batch in batches(sampler, jobs, rows):
            for job, found in zip(batch, sampler.answer(batch), strict=True):
                texts = {answer.text for answer in kept[job.prompt].values()}
                if found is None:
                    counts[f"{job.style} cut"] += 1
                elif found.text in texts or not usable(found.text):
                    counts[f"{job.style} refused"] += 1
                else:
                    counts[f"{job.style} kept"] += 1
                    kept[job.prompt][job.style] = found
            print(f"round {attempt}: {sum(counts.values())}/{len(jobs)} {dict(sorted(counts.items()))}", flush=True)
    return kept


def pair_statistics(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return counts of prompts, rows and pairs, and the shares of ties and conflicts among the pairs."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["prompt"]].append(row)
    pairs = [pair for group in groups.values() for pair in combinations(group, 2)]
    products = [(a["detail"] - b["detail"]) * (a["ease"] - b["ease"]) for a, b in pairs]
    return {
        "prompts": len(groups),
        "rows": len(rows),
        "pairs": len(pairs),
        "ties": sum(product == 0 for product in products),
        "conflict_share": round(sum(product < 0 for product in products) / max(1, len(pairs)), 3),
        "mean_words": round(statistics.mean(len(words(row["response"])) for row in rows), 1) if rows else 0.0,
    }


def style_statistics(answers: Sequence[Answer]) -> dict[str, Any]:
    """Return the number of answers, their mean scores, and the least, median and greatest length in tokens."""
    if not answers:
        return {"rows": 0}
    found = [scores(answer.text) for answer in answers]
    lengths = sorted(answer.tokens for answer in answers)
    return {
        "rows": len(answers),
        **{name: round(statistics.mean(row[name] for row in found), 2) for name in found[0]},
        "tokens": [lengths[0], statistics.median(lengths), lengths[-1]],
    }


def split(prompts: Sequence[str], validation: int, test: int, seed: int) -> dict[str, list[str]]:
    """Return the prompts of each split, drawn by seed."""
    shuffled = random.Random(seed).sample(prompts, len(prompts))
    held_out = validation + test
    return {
        "train": shuffled[held_out:],
        "validation": shuffled[:validation],
        "test": shuffled[validation:held_out],
    }


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.quickstart_data", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder that train, validation and test.jsonl go to")
    parser.add_argument("--model", required=True, help="model folder in the transformers format")
    parser.add_argument("--prompts", type=Path, help="prompts, one a line (default: prompts.txt in --out)")
    parser.add_argument("--seed", type=int, default=42, help="seed of the noise and of the splits")
    parser.add_argument("--tries", type=int, default=2, help="draws of an answer until it is usable")
    parser.add_argument("--min_responses", type=int, default=3, help="prompts with fewer responses are dropped")
    parser.add_argument("--validation", type=int, default=24, help="prompts of the validation split")
    parser.add_argument("--test", type=int, default=96, help="prompts of the test split")
    parser.add_argument("--max_new_tokens", type=int, default=64, help="longest answer in tokens, end included")
    parser.add_argument("--temperature", type=float, default=0.8, help="sampling temperature")
    parser.add_argument("--top_p", type=float, default=0.95, help="nucleus mass")
    parser.add_argument("--end_of_turn", default="<|im_end|>", help="token that ends an answer of the model")
    parser.add_argument("--batch_rows", type=int, default=64, help="answers drawn at once")
    parser.add_argument("--limit", type=int, help="only the first prompts, for a trial")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Sample, score, split and write; print the statistics."""
    options = parse_arguments(arguments)
    source = options.prompts or options.out / "prompts.txt"
    if not source.is_file():
        raise UserError(f"{source}: no such file; expected prompts, one a line")
    prompts = list(dict.fromkeys(filter(None, map(str.strip, source.read_text(encoding="utf-8").splitlines()))))
    sampler = Sampler(
        options.model, options.seed, options.max_new_tokens, options.temperature, options.top_p, options.end_of_turn
    )
    kept = collect(sampler, prompts[: options.limit], options.tries, options.batch_rows)
    enough = [prompt for prompt, answers in kept.items() if len(answers) >= options.min_responses]
    print(f"{len(enough)} of {len(kept)} prompts have at least {options.min_responses} responses")
    if len(enough) <= options.validation + options.test:
        raise UserError(
            f"{source}: {len(enough)} prompts are too few for the splits; raise --tries or shrink the splits"
        )
    for style in STYLES:
        print(style, json.dumps(style_statistics([kept[prompt][style] for prompt in enough if style in kept[prompt]])))
    for name, chosen in split(enough, options.validation, options.test, options.seed).items():
        rows = []
        for prompt in chosen:
            texts = sorted(answer.text for answer in kept[prompt].values())
            random.Random(f"{options.seed}/{prompt}").shuffle(texts)  # the order shall not tell the instruction
            rows += [{"prompt": prompt, "response": text, **scores(text)} for text in texts]
        write_jsonl(options.out / f"{name}.jsonl", rows)
        print(name, json.dumps(pair_statistics(rows)))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
