"""What the model sees of each stage's rows: the functions that the stages of the registry name."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sipo_pl.data.datamodules.sft_data import sft_examples
from sipo_pl.data.preference import mask_prompt, preference_pairs, realignment_pairs
from sipo_pl.data.units import read_units
from sipo_pl.messages.errors import UsageError, UserError
from sipo_pl.recipe.components import import_class
from sipo_pl.registry import STAGES
from sipo_pl.storage.json_lines import read_jsonl
from sipo_pl.text.prompt import text_id
from sipo_pl.text.prompts.build import CritiquePrompts
from sipo_pl.use.row_view import Inspection, SeenRow


def align(asked: Inspection) -> SeenRow:
    """Show a pair as an objective prefers it."""
    recipe, template = asked.recipe, asked.template
    path = recipe.layout.pairs(asked.split)
    rows: Any = read_jsonl(path)
    row = asked.pick(rows, path)
    preferred = row["preferred"][asked.objective]
    mask = recipe.part(mask_prompt)

    def pairs(some: Any) -> tuple[Any, Counter[str]]:
        return preference_pairs(some, asked.objective, template, asked.max_length, mask=mask)

    sides = ["tied", "tied"] if preferred == -1 else ["rejected", "rejected"]
    if preferred != -1:
        sides[preferred] = "chosen"
    texts = [asked.text(f"response_{i}, {sides[i]}", row["prompt"], row[f"response_{i}"]) for i in (0, 1)]
    notes = [f"preferred by {name}: {_side(index)}" for name, index in row["preferred"].items()]
    notes += _why(pairs([row])[1], asked.max_length)
    return SeenRow(path, row["pair_id"], len(rows), texts, notes, dict(pairs(rows)[1]))


def realign(asked: Inspection) -> SeenRow:
    """Show a pair whose kept response is learned."""
    recipe, path = asked.recipe, asked.recipe.layout.kept
    rows: Any = read_jsonl(path)
    row = asked.pick(rows, path)
    mask = recipe.part(mask_prompt)

    def pairs(some: Any) -> tuple[Any, Counter[str]]:
        names = recipe.objective_names
        return realignment_pairs(some, names, asked.template, asked.max_length, mask=mask)

    made, dropped = pairs([row])
    rejected = [name for name in ("response_0", "response_1", "previous") if name in row]
    texts = [asked.text("kept, chosen", row["prompt"], row["kept"])]
    texts += [asked.text(f"{name}, rejected", row["prompt"], row[name]) for name in rejected]
    notes = [f"{row['source']} of {row['sample_id']}, margin {row['margin']:.4g}"]
    notes += [f"pair {pair.pair_id}" for pair in made]
    return SeenRow(
        path, row["pair_id"], len(rows), texts, notes + _why(dropped, asked.max_length), dict(pairs(rows)[1])
    )


def sft(asked: Inspection) -> SeenRow:
    """Show a response of the fine-tuning."""
    path = asked.recipe.layout.sft_rows
    rows: Any = read_jsonl(path)
    row = asked.pick(rows, path)
    responses = asked.settings["data"]["responses"]

    def examples(some: Any) -> Counter[str]:
        truncate = asked.recipe.compat.truncate_sft
        return sft_examples(some, responses, asked.template, asked.max_length, truncate=truncate)[1]

    notes = [
        f"preferred by {', '.join(row['preferred_by']) or 'no objective'}",
        *_why(examples([row]), asked.max_length),
    ]
    return SeenRow(
        path,
        row["prompt_id"],
        len(rows),
        [asked.text("response", row["prompt"], row["response"])],
        notes,
        dict(examples(rows)),
    )


def conflicting_prompts(asked: Inspection) -> SeenRow:
    """Show a prompt that candidates are sampled for."""
    return _prompts(asked.recipe.layout.pairs("train_conflict"), asked)


def evaluation_prompts(asked: Inspection) -> SeenRow:
    """Show a prompt of the evaluation."""
    return _prompts(asked.recipe.layout.test_prompts, asked)


def _prompts(path: Path, asked: Inspection) -> SeenRow:
    rows = read_jsonl(path)
    row = asked.pick(rows, path)
    ids = asked.template.prompt_ids(row["prompt"])
    return SeenRow(path, row["prompt_id"], len(rows), [asked.prompt("prompt", ids)], _room(asked, ids))


def review(asked: Inspection) -> SeenRow:
    """Show a sampled response in the prompt of its review."""
    recipe, path = asked.recipe, asked.recipe.layout.stage("sample")
    rows = read_units(path)
    row = asked.pick(rows, path)
    file = asked.settings["model"]["prompt_file"]
    critique = CritiquePrompts(recipe.objectives, recipe.template.kind, review_file=file)
    prompt, start = critique.review_prompt(row["prompt"], row["text"])
    ids = asked.template.continuation_ids(prompt, start)
    return SeenRow(
        path, row["sample_id"], len(rows), [asked.prompt("review prompt", ids)], _marks(row) + _room(asked, ids)
    )


def rewrite(asked: Inspection) -> SeenRow:
    """Show a reviewed response in the prompt of its rewrite."""
    recipe, path = asked.recipe, asked.recipe.layout.stage("review")
    rows = read_units(path)
    row = asked.pick(rows, path)
    samples = {one["sample_id"]: one for one in read_units(recipe.layout.stage("sample"))}
    sample = samples[row["sample_id"]]
    file = asked.settings["model"]["prompt_file"]
    critique = CritiquePrompts(recipe.objectives, recipe.template.kind, rewrite_file=file)
    ids = asked.template.prompt_ids(critique.rewrite_prompt(sample["prompt"], sample["text"], row["review"]))
    return SeenRow(
        path, row["sample_id"], len(rows), [asked.prompt("rewrite prompt", ids)], _marks(row) + _room(asked, ids)
    )


def score(asked: Inspection) -> SeenRow:
    """Show a sampled response as reward models read it."""
    path = asked.recipe.layout.stage("sample")
    rows = read_units(path)
    row = asked.pick(rows, path)
    text = asked.text(f"sample at {row['point']}", row["prompt"], row["text"])
    marked = Counter(mark for one in rows for mark in one["marks"])
    left_out = {f"marked {mark}": count for mark, count in marked.items()}
    return SeenRow(path, row["sample_id"], len(rows), [text], _marks(row), left_out)


def filter(asked: Inspection) -> SeenRow:
    """Show a conflicting pair with what the filter held against each of its candidates."""
    layout = asked.recipe.layout
    path = layout.pairs("train_conflict")
    rows = read_jsonl(path)
    pair = asked.pick(rows, path)
    rewards = {one["text_id"]: one["rewards"] for one in read_units(layout.stage("score"))}
    responses = [rewards[text_id(pair["prompt_id"], pair[f"response_{i}"])] for i in (0, 1)]
    kept = {one["pair_id"]: one["sample_id"] for one in read_jsonl(layout.kept)}
    notes = [f"kept: {kept.get(pair['pair_id'], 'nothing')}"]
    for one in read_jsonl(layout.stage("combine") / "combined.jsonl"):
        if one["prompt_id"] == pair["prompt_id"]:
            notes.append(f"{one['sample_id']}, {one['source']}: {_refusal(one, responses)}")
    texts = [asked.text(f"response_{i}", pair["prompt"], pair[f"response_{i}"]) for i in (0, 1)]
    return SeenRow(path, pair["pair_id"], len(rows), texts, notes, {"no candidate kept": len(rows) - len(kept)})


def _refusal(candidate: dict[str, Any], responses: Sequence[dict[str, float]]) -> str:
    """Return what keeps a candidate out: marks, or the reward models under which a response is as good."""
    if not candidate["rewards"]:
        return f"marked {', '.join(candidate['marks'])}"
    gaps = [
        f"{model} against response_{i} ({candidate['rewards'][model] - theirs:+.4g})"
        for i, response in enumerate(responses)
        for model, theirs in response.items()
        if candidate["rewards"][model] <= theirs
    ]
    return f"fails {', '.join(gaps)}" if gaps else "beats both under every reward"


def seen_row(stage: str, asked: Inspection) -> SeenRow:
    """Return the row that was asked for, as a stage's model sees it.

    Raises:
        UserError: the rows are not there yet.
        UsageError: no such row, or a stage whose model sees no rows.
    """
    path = STAGES[stage].inspected
    if path is None:
        raise UsageError(f"the rows of {stage} are no model's to see")
    view: Callable[[Inspection], SeenRow] = import_class(path)
    found = view(asked)
    if not found.count:
        raise UserError(f"{found.path}: holds no rows")
    return found


def _side(index: int) -> str:
    return "a tie" if index == -1 else f"response_{index}"


def _why(dropped: Counter[str], max_length: int) -> list[str]:
    reasons = [f"{reason} {max_length}" if reason.endswith("max_length") else reason for reason in dropped]
    return [f"LEFT OUT: {reason}" for reason in reasons]


def _marks(row: dict[str, Any]) -> list[str]:
    return [f"marked: {', '.join(row['marks'])}; it goes no further"] if row["marks"] else []


def _room(asked: Inspection, ids: Sequence[int]) -> list[str]:
    decoding = asked.settings["model"]["decoding"]
    longest = decoding["max_length"]
    room = max(0, longest - len(ids))
    most = decoding["max_new_tokens"]
    return [f"room for an answer: {room if most is None else min(room, most)} tokens (max_length {longest})"]
