"""What the benchmarks decode and score: a file's texts in SmolLM2's chat template, or random tokens."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoTokenizer

from benchmarks.models import SMOLLM2
from sipo_pl.engine.decoding.options import Request
from sipo_pl.recipe.recipe import Template
from sipo_pl.storage.json_lines import read_jsonl
from sipo_pl.storage.model_hashes import resolve_base_model
from sipo_pl.text.templates import Encoded, PromptTemplate

POINTS = (0.2, 0.4, 0.6, 0.8)  # weights of the first policy; the others share the rest
_FIRST_PLAIN = 3  # smaller ids are special tokens


def prompt_requests(prompts: Sequence[tuple[int, ...]], policies: int) -> list[Request]:
    """Return a row for each prompt and weight."""
    return [
        Request(f"{index}/{w}", prompt, (w, *[(1 - w) / (policies - 1)] * (policies - 1)))
        for index, prompt in enumerate(prompts)
        for w in POINTS
    ]


def real_prompts(data: Path, count: int, longest: int = 256) -> list[tuple[int, ...]]:
    """Return the tokens of the first distinct prompts of a JSONL file; fewer where the file holds fewer."""
    template = _template()
    prompts = dict.fromkeys(row["prompt"] for row in read_jsonl(data, ["prompt"]))
    ids = [tuple(template.prompt_ids(prompt)) for prompt in prompts]
    return [prompt for prompt in ids if len(prompt) <= longest][:count]


def random_prompts(count: int, shortest: int, longest: int, vocabulary: int, seed: int = 2) -> list[tuple[int, ...]]:
    """Return texts of random tokens and of lengths spread evenly between two bounds."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.linspace(shortest, longest, count).round().int()[torch.randperm(count, generator=generator)]
    return [
        tuple(torch.randint(_FIRST_PLAIN, vocabulary, (n,), generator=generator).tolist()) for n in lengths.tolist()
    ]


def behind_header(prompts: Sequence[tuple[int, ...]], tokens: int, vocabulary: int) -> list[tuple[int, ...]]:
    """Return the prompts behind so many random tokens that all share, as review and rewrite prompts have them."""
    (header,) = random_prompts(1, tokens, tokens, vocabulary, seed=5) if tokens else ((),)
    return [(*header, *prompt) for prompt in prompts]


def real_rows(data: Path, prompts: int, responses: int) -> list[Encoded]:
    """Return the first prompts of a JSONL file that have so many responses, with these."""
    template = _template()
    by_prompt: dict[str, list[str]] = {}
    for row in read_jsonl(data, ["prompt", "response"]):
        by_prompt.setdefault(row["prompt"], []).append(row["response"])
    chosen = [(prompt, texts[:responses]) for prompt, texts in by_prompt.items() if len(texts) >= responses]
    return [template.encode(prompt, text) for prompt, texts in chosen[:prompts] for text in texts]


def random_rows(
    prompts: int, responses: int, prompt_tokens: Sequence[int], response_tokens: Sequence[int], vocabulary: int
) -> list[Encoded]:
    """Return random prompts with random responses to each."""
    asked = random_prompts(prompts, *prompt_tokens, vocabulary)
    answers = random_prompts(prompts * responses, *response_tokens, vocabulary)
    return [
        Encoded([*asked[index // responses], *answer], len(asked[index // responses]))
        for index, answer in enumerate(answers)
    ]


def scored_rows(args: argparse.Namespace, vocabulary: int) -> list[Encoded]:
    """Return the rows that the options of `options.add_row_options` ask for."""
    if args.data:
        return real_rows(args.data, args.prompts, args.responses)
    return random_rows(args.prompts, args.responses, args.prompt_tokens, args.response_tokens, vocabulary)


def without_sharing(rows: Sequence[Encoded]) -> list[Encoded]:
    """Return the rows with prompts of their own, of the same lengths: each begins with another token."""
    return [Encoded([_FIRST_PLAIN + index, *row.input_ids[1:]], row.prompt_length) for index, row in enumerate(rows)]


def _template() -> PromptTemplate:
    return PromptTemplate(AutoTokenizer.from_pretrained(resolve_base_model(SMOLLM2)), Template(kind="chat"))
