"""Stage prepare: raw data into pairs of train and validation, and test prompts."""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sipo_pl.data.conflicts import format_statistics, statistics
from sipo_pl.data.converters.base import Converted, Converter, Pairing, by_prompt, flaw
from sipo_pl.data.converters.checks import checked_pairs, checked_prompts
from sipo_pl.data.folder_card import write_folder_card
from sipo_pl.data.lengths import Lengths
from sipo_pl.data.prepared_splits import Splits, divide
from sipo_pl.data.quirks import say_quirks
from sipo_pl.data.readers import read_all, source_hash
from sipo_pl.data.rows import PairRow, PromptRow
from sipo_pl.data.splits import Split, draw_validation
from sipo_pl.messages.errors import UsageError, UserError
from sipo_pl.recipe.checks import check_recipe
from sipo_pl.recipe.components import instantiate, own_code
from sipo_pl.recipe.recipe import Recipe
from sipo_pl.storage.json_lines import write_json, write_jsonl
from sipo_pl.storage.provenance import Provenance

if TYPE_CHECKING:
    from sipo_pl.text.templates import PromptTemplate

LOG = logging.getLogger("sipo_pl")
SPLITS = ("train", "validation", "test")
TABLES = {
    "pairs": {name: f"{name}.jsonl" for name in ("train", "train_conflict", "validation")},
    "prompts": {"test": "test.jsonl"},
    "sft": {"train": "sft.jsonl"},
}
COMPAT = (
    "tie_is_conflict",
    "map_batch",
    "map_shards",
    "zero_share_takes_all",
    "keep_degenerate",
    "loose_length_filter",
)


def prepare(recipe: Recipe, overwrite: bool = False) -> None:
    """Make pairs and test prompts of the raw data, with statistics of their conflicts.

    Args:
        recipe: what the stages of the run share
        overwrite: remove what an earlier preparation left and make it anew
    """
    converter, made_of = check(recipe), provenance(recipe)
    folder, manifest = made_of.folder, made_of.open(overwrite=overwrite)
    if manifest.complete:
        LOG.info("prepare: complete in %s", folder)
        return
    now = recipe.date
    template = _template(recipe, now)
    splits = _read(converter, recipe)
    _label(splits, replace(recipe, template=template.template))
    lengths = recipe.part(Lengths)(template)
    with _places_said(recipe):
        divide(splits, lengths, recipe)
        _check_lengths(splits, lengths, recipe)
        files, rows = _write(folder, splits, lengths, recipe)
    shows_date = template.chat is not None and template.chat.reads_clock
    kept = {"template_shows_date": True} if shows_date else {}
    # a reward model's template may show one where the policies' does not
    manifest.finish(folder, files, rows, date=now.isoformat(), **kept)


def provenance(recipe: Recipe) -> Provenance:
    """Return what the stage's folder is made of."""
    inputs = {name: source_hash(source) for name, source in recipe.data.sources().items()}
    _check_distinct(recipe.data.sources(), inputs)
    return Provenance(recipe.layout.stage("prepare"), "prepare", _keys(recipe), inputs, recipe.seed)


def read_raw(recipe: Recipe) -> Splits:
    """Return the pairs and test prompts of the raw data as they come, before any is left out."""
    return _read(check(recipe), recipe)


def check(recipe: Recipe) -> Converter:
    """Check what needs no file; return the converter.

    Raises:
        UsageError: what running the stage would raise before it touches a file.
    """
    check_recipe(recipe)
    if recipe.limit is not None and recipe.limit < 1:
        raise UsageError(f"limit: must be at least 1, found {recipe.limit}")
    converter = instantiate(recipe.data.converter, Converter, "data.converter")
    converter.pairing = Pairing(recipe.part(by_prompt), recipe.part(flaw))
    return converter


def _check_distinct(sources: dict[str, str], hashes: dict[str, str]) -> None:
    """Refuse a copy of a file beside it in one list: every row of it would count twice."""
    seen: dict[tuple[str, str], str] = {}
    for name, content in hashes.items():
        key = name.rpartition("/")[0]
        if (other := seen.setdefault((key, content), name)) != name:
            raise UserError(
                f"data.{key.replace('/', '.')}: {sources[other]} and {sources[name]} hold the same: every row of them "
                "would count twice; name one of them"
            )


def _keys(recipe: Recipe) -> dict[str, Any]:
    from sipo_pl.storage.model_hashes import tokenizer_hash

    data = {key: value for key, value in asdict(recipe.data).items() if key not in SPLITS}
    return {
        **data,
        "template": asdict(recipe.template),
        "objectives": [
            {key: getattr(one, key) for key in ("name", "column", "direction")} for one in recipe.objectives
        ],
        "compat": {name: getattr(recipe.compat, name) for name in COMPAT},
        "sft": recipe.runs("sft"),
        "limit": recipe.limit,
        "seed": recipe.seed,
        "tokenizer": tokenizer_hash(recipe.base_model),
        **_label_keys(recipe),
    }


def _label_keys(recipe: Recipe) -> dict[str, Any]:
    if not any(one.label for one in recipe.objectives):
        return {}
    from sipo_pl.rewards.panel import label_rewards

    panel = label_rewards(recipe)
    return {"labels": {name: panel.keys(name) for name in panel.names}}


def _read(converter: Converter, recipe: Recipe) -> Splits:
    data = recipe.data
    train = _pairs(converter, recipe, "train")
    if data.validation_share is None:
        validation = Split("validation", *_pairs(converter, recipe, "validation")[:2])
        return Splits(Split("train", *train[:2]), validation, _prompts(converter, recipe))
    slots = range(len(train.rows)) if train.slots is None else train.slots
    count = len(train.rows) + (0 if train.slots is None else train.dropped.total())
    parts = draw_validation(slots, count, data.validation_share, data.validation_seed)
    rows = [[train.rows[index] for index in part] for part in parts]
    return Splits(Split("train", rows[0], train.dropped), Split("validation", rows[1]), _prompts(converter, recipe))


def _pairs(converter: Converter, recipe: Recipe, split: str) -> Converted[PairRow]:
    start = time.perf_counter()
    files = recipe.data.files(split)
    named = [one for one in recipe.objectives if not one.label]  # which the raw data has labels of
    if isinstance(files, dict):
        by_objective = {name: read_all(sources) for name, sources in files.items()}
        with own_code("data.converter", converter, "joined"):
            made = converter.joined(by_objective, named)
        found = checked_pairs(made, converter, "joined", named)
    else:
        with own_code("data.converter", converter, "pairs"):
            made = converter.pairs(read_all(files), named)
        found = checked_pairs(made, converter, "pairs", named)
    say_quirks(split, found.rows, recipe.template)
    LOG.info("prepare: %s: %d pairs read in %.1f s", split, len(found.rows), time.perf_counter() - start)
    return found


def _prompts(converter: Converter, recipe: Recipe) -> Split[PromptRow]:
    data = recipe.data
    files = data.files("test")
    groups = files.values() if isinstance(files, dict) else [files]
    rows = [row for sources in groups for row in read_all(sources)]
    for key, count in (("test_first", data.test_first), ("test_last", data.test_last)):
        if count is not None and len(rows) < count:
            raise UserError(f"data.{key}: asks for {count} rows, the test files hold {len(rows)}")
    if data.test_last is not None:
        rows = rows[-data.test_last :]
    with own_code("data.converter", converter, "prompts"):
        made = converter.prompts(rows[: data.test_first])
    return Split("test", *checked_prompts(made, converter)[:2])


def _label(splits: Splits, recipe: Recipe) -> None:
    """Score the responses of all pairs under the objectives whose labels are rewards, in one pass."""
    if not any(one.label for one in recipe.objectives):
        return
    from sipo_pl.rewards.labels import label_pairs
    from sipo_pl.rewards.panel import label_rewards

    pairs = [row for split in splits.pairs for row in split.rows]
    label_pairs(pairs, recipe.objectives, label_rewards(recipe), recipe.layout.cache / "rewards")


@contextmanager
def _places_said(recipe: Recipe) -> Iterator[None]:
    """Within the block, an error of the chat template on a prompt names the row of the raw data that it comes from."""
    from sipo_pl.text.chat_rendering import BadConversation

    try:
        yield
    except BadConversation as error:
        if error.prompt is None:
            raise
        texts = [error.prompt] if isinstance(error.prompt, str) else [one["content"] for one in error.prompt]
        said = [json.dumps(text, ensure_ascii=False)[1:-1] for text in texts]
        for location, row in read_all(recipe.data.sources().values()):
            held = json.dumps(row, ensure_ascii=False, default=str)
            if all(text in held for text in said):
                raise UserError(f"{location}: {error}") from None
        raise


def _template(recipe: Recipe, now: datetime) -> "PromptTemplate":
    """Return the template, which shows one date in the whole run where it shows any."""
    from sipo_pl.text.tokenizers import load_template

    template = load_template(recipe.base_model, replace(recipe.template, date=now.isoformat()))
    if template.chat is not None and template.chat.reads_clock:
        LOG.info("prepare: the chat template shows a date: %s, kept for the whole run (template.date)", now)
    return template


def _check_lengths(splits: Splits, lengths: Lengths, recipe: Recipe) -> None:
    """Raise UserError where a text is longer than a base model takes, or holds a token that it has not."""
    from sipo_pl.engine.models.loading import base_limits
    from sipo_pl.engine.models.text_limit import check_tokens

    bases = dict.fromkeys([recipe.base_model, *(one.base_model for one in recipe.objectives if one.base_model)])
    pairs = {
        f"{split.name}: pair {pair['pair_id']!r}": max(side.whole for side in lengths.sides(pair))
        for split in splits.pairs
        for pair in split.rows
    }
    prompts = {f"test: prompt {row['prompt_id']!r}": lengths.prompt(row) + 1 for row in splits.test.rows}
    for base in bases:
        vocabulary, limit = base_limits(base)
        check_tokens(lengths.largest_token, vocabulary)
        if limit is None:
            continue
        for name, tokens in (pairs | prompts).items():
            limit.check(tokens, f"{name} (data.max_length leaves it out)")


def _write(folder: Path, splits: Splits, lengths: Lengths, recipe: Recipe) -> tuple[list[Path], int]:
    """Write the splits and their statistics; return the files and the number of rows."""
    if not splits.conflict:
        LOG.warning("prepare: no pair of train conflicts, so there is nothing to sample candidates for")
    pairs = {split.name: split.rows for split in splits.pairs}
    tokens = {name: lengths.table(rows) for name, rows in pairs.items()}
    tokens["test"] = {"prompt": [lengths.prompt(row) for row in splits.test.rows]}
    stats = statistics(pairs, recipe.objective_names, {split.name: split.dropped for split in splits.named}, tokens)
    stats["splits"]["test"] = {"prompts": len(splits.test.rows)}
    write_json(folder / "statistics.json", stats)
    rows = {
        "train": write_jsonl(folder / "train.jsonl", splits.train.rows),
        "train_conflict": write_jsonl(folder / "train_conflict.jsonl", splits.conflict),
        "validation": write_jsonl(folder / "validation.jsonl", splits.validation.rows),
        "test": write_jsonl(folder / "test.jsonl", splits.test.rows),
    }
    if recipe.runs("sft"):
        rows["sft"] = write_jsonl(recipe.layout.sft_rows, splits.sft)
    write_folder_card(folder, TABLES)
    LOG.info("prepare: statistics\n\n%s\n", format_statistics(stats))
    LOG.info("prepare: %s in %s", ", ".join(f"{count} {name}" for name, count in rows.items()), folder)
    return [*(folder / f"{name}.jsonl" for name in rows), folder / "statistics.json"], sum(rows.values())
