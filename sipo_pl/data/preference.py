"""Which response of a pair is preferred under an objective, and the tokenised pairs that a fit trains on."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from sipo_pl.data.loader import RowKey, TrainingPair, row_key
from sipo_pl.data.rows import KeptRow, PairRow
from sipo_pl.text.prompt import Prompt, TextRow
from sipo_pl.text.templates import Encoded, PromptTemplate

Select = Literal["own", "any", "agreed"]
Mask = Callable[[TrainingPair], TrainingPair]


def mask_prompt(pair: TrainingPair) -> TrainingPair:
    """Return the pair with the tokens that are learned: those of both responses, as its rows have them."""
    return pair


def preference_pairs(
    rows: Iterable[PairRow],
    objective: str,
    template: PromptTemplate,
    max_length: int,
    *,
    select: Select = "own",
    mask: Mask = mask_prompt,
) -> tuple[list[TrainingPair], Counter[str]]:
    """Tokenise prepared pairs as `objective` prefers them.

    Args:
        rows: prepared pairs.
        objective: whose preference tells chosen from rejected.
        template: renders and tokenises.
        max_length: longest row in tokens.
        select: own takes the pairs that `objective` decides; any those that at least one objective decides, of which
            the first, after `objective`, tells the chosen response; agreed those whose winner wins under every
            objective (Reward Consistency, arXiv 2504.11337).
        mask: tells which tokens are learned, see `mask_prompt`.

    Returns:
        The pairs, and how many rows were left out by reason: a tie, a conflict where all shall agree, longer than
        `max_length`, or all masked.
    """
    asked: list[_Asked] = []
    dropped = Counter[str]()
    for row in rows:
        by_objective = row["preferred"]
        order = [by_objective[objective], *(by_objective.values() if select == "any" else ())]
        preferred = next((index for index in order if index != -1), -1)
        if preferred == -1 or (select == "agreed" and -1 in by_objective.values()):
            dropped["tie"] += 1
            continue
        if select == "agreed" and len(set(by_objective.values())) > 1:
            dropped["conflict"] += 1
            continue
        responses = (row["response_0"], row["response_1"])
        signs = {name: _sign(index, preferred) for name, index in row["preferred"].items()}
        asked.append(_Asked(row["pair_id"], row["prompt"], responses[preferred], responses[1 - preferred], signs))
    return _tokenized(asked, template, max_length, mask, dropped), dropped


def _sign(index: int, chosen: int) -> int:
    return 0 if index == -1 else 1 if index == chosen else -1


def realignment_pairs(
    rows: Iterable[KeptRow],
    objectives: Sequence[str],
    template: PromptTemplate,
    max_length: int,
    *,
    mask: Mask = mask_prompt,
) -> tuple[list[TrainingPair], Counter[str]]:
    """Tokenise the pairs of re-alignment: each kept response over the one objective 1 prefers, then over the other.

    Where objective 1 ties, the next one that does not tie decides (with `compat.tie_is_conflict`). In a round after the
    first, a kept response that beats the one of the round before comes over that one too.

    Args:
        rows: kept responses with their pairs, none of which ties in all objectives.
        objectives: names, in the recipe's order.
        template: renders and tokenises.
        max_length: longest row in tokens.
        mask: tells which tokens are learned, see `mask_prompt`.

    Returns:
        The pairs, two or three a row, and how many were left out by reason.
    """
    asked: list[_Asked] = []
    for row in rows:
        first = next(preferred for name in objectives if (preferred := row["preferred"][name]) != -1)
        signs = dict.fromkeys(row["preferred"], 1)  # kept, because every reward model prefers it
        rejected = {str(index): (row["response_0"], row["response_1"])[index] for index in (first, 1 - first)}
        if "previous" in row:
            rejected["previous"] = row["previous"]
        for name, text in rejected.items():
            asked.append(_Asked(f"{row['pair_id']}>{name}", row["prompt"], row["kept"], text, signs))
    dropped = Counter[str]()
    return _tokenized(asked, template, max_length, mask, dropped), dropped


class _Asked(NamedTuple):
    """A pair that is to be tokenised; fields as of `TrainingPair`."""

    pair_id: str
    prompt: Prompt
    chosen: str
    rejected: str
    signs: Mapping[str, int]


def _tokenized(
    asked: Sequence[_Asked],
    template: PromptTemplate,
    max_length: int,
    mask: Mask,
    dropped: Counter[str],
) -> list[TrainingPair]:
    """Return the pairs, masked as asked, without those that are too long or leave nothing to learn from."""
    rows = template.encode_all([(one.prompt, text) for one in asked for text in (one.chosen, one.rejected)])
    pairs = []
    for one, chosen, rejected in zip(asked, rows[::2], rows[1::2], strict=True):
        texts = (TextRow(one.prompt, one.chosen), TextRow(one.prompt, one.rejected))
        pair = mask(TrainingPair(one.pair_id, chosen, rejected, one.signs, texts))
        if max(len(row.input_ids) for row in pair.rows) > max_length:
            dropped["longer than max_length"] += 1
        elif min(row.response_length for row in pair.rows) == 0:
            dropped["all masked"] += 1
        else:
            pairs.append(pair)
    return pairs


def unique_rows(pairs: Sequence[TrainingPair]) -> list[Encoded]:
    """Return the distinct tokenised rows of `pairs`, chosen and rejected."""
    return list({row_key(row): row for pair in pairs for row in pair.rows}.values())


def unique_texts(pairs: Sequence[TrainingPair]) -> dict[RowKey, TextRow]:
    """Return the text of every distinct tokenised row of `pairs`."""
    return {row_key(row): text for pair in pairs for row, text in zip(pair.rows, pair.texts, strict=True)}
