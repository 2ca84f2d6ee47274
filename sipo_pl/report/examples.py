"""The texts that a report shows: candidates beside their pair, and test responses before and after."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sipo_pl.report.cells import BASE, weights_of
from sipo_pl.report.inputs import ReportInputs
from sipo_pl.text.prompt import Prompt, text_id

_SOURCES = {"original": "sampled response", "rewrite": "rewrite"}


@dataclass(frozen=True)
class Text:
    """One text of an example.

    Args:
        title: what it is
        text: the text; None where there is none
        rewards: objective to reward, where it was scored
        marks: such as "preferred by detail", or why it was not used
        kept: whether it is the response that was kept
    """

    title: str
    text: str | None
    rewards: Mapping[str, float]
    marks: Sequence[str] = ()
    kept: bool = False


@dataclass(frozen=True)
class Example:
    """A prompt with the texts that belong together.

    Args:
        prompt: the prompt as text
        note: one line about the outcome
        texts: what is shown side by side
    """

    prompt: str
    note: str
    texts: Sequence[Text]


def candidate_examples(inputs: ReportInputs, objectives: Sequence[str], count: int) -> list[Example]:
    """Return up to `count` candidates: kept ones first, spread over the data, then ones that were not kept.

    Rewards are the implicit rewards of the objectives' policies; they compare texts of one prompt only.
    """
    candidates = inputs.combined or inputs.rows["sample"]
    taken = {(row["prompt_id"], row["sample_id"]) for row in inputs.kept}
    pairs = {pair["prompt_id"]: pair for pair in reversed(inputs.pairs)}
    chosen = [(row, row) for row in spread(inputs.kept, count)]
    others = [
        (row, pairs[row["prompt_id"]])
        for row in candidates
        if row["prompt_id"] in pairs and (row["prompt_id"], row["sample_id"]) not in taken
    ]
    chosen += spread(others, count - len(chosen))
    find = _Finder(inputs, objectives)
    return [find.example(row, pair) for row, pair in chosen]


def test_examples(inputs: ReportInputs, objectives: Sequence[str], count: int) -> list[Example]:
    """Return up to `count` test prompts, each with the responses of the base, before and after at every weight."""
    rewards = {
        (phase, row["sample_id"]): {name: row["rewards"][name] for name in objectives}
        for phase, stage in (("before", "measure-align"), ("after", "measure-realign"))
        for row in inputs.rows[stage]
    }
    by_prompt: dict[str, list[tuple[tuple[Any, ...], Text, Prompt]]] = {}
    for phase, stage in (("before", "evaluate-align"), ("after", "evaluate-realign")):
        for row in inputs.rows[stage]:
            point = row["point"]
            title = "base model" if point == BASE else f"{point} {phase}"
            order = (point != BASE, [-weight for weight in weights_of(point)], phase != "before", row["k"])
            text = Text(title, row["text"], rewards.get((phase, row["sample_id"]), {}), row["marks"])
            by_prompt.setdefault(row["prompt_id"], []).append((order, text, row["prompt"]))
    prompts = [by_prompt[prompt] for prompt in spread(sorted(by_prompt), count)]
    return [
        Example(prompt_text(texts[0][2]), "", [text for _, text, _ in sorted(texts, key=lambda entry: entry[0])])
        for texts in prompts
    ]


def prompt_text(prompt: Prompt) -> str:
    """Return a prompt for reading; chat messages carry their roles."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{message['role']}: {message['content']}" for message in prompt)


class _Finder:
    """Finds by id what belongs to a candidate."""

    def __init__(self, inputs: ReportInputs, objectives: Sequence[str]) -> None:
        self.objectives = objectives
        self.samples = {row["sample_id"]: row for row in inputs.rows["sample"]}
        self.reviews = {row["sample_id"]: row for row in inputs.rows["review"]}
        self.rewrites = {row["sample_id"]: row for row in inputs.rows["rewrite"]}
        self.rewards = {row["text_id"]: row["rewards"] for row in inputs.rows["score"]}

    def example(self, row: Mapping[str, Any], pair: Mapping[str, Any]) -> Example:
        """Return the example of a candidate: a kept row, or a row of combine or sample that was not kept."""
        prompt_id, sample_id = row["prompt_id"], row["sample_id"]
        kept = row["source"] if "kept" in row else ""
        texts = []
        for index in (0, 1):
            fans = [f"preferred by {name}" for name in self.objectives if pair["preferred"][name] == index]
            texts.append(self._text(f"original {index}", prompt_id, pair[f"response_{index}"], fans))
        if sample := self.samples.get(sample_id):
            texts.append(self._text("sampled", prompt_id, sample["text"], sample["marks"], kept == "original"))
        if review := self.reviews.get(sample_id):
            texts.append(Text("review", review["review"], {}, review["marks"]))
        if rewrite := self.rewrites.get(sample_id):
            texts.append(self._text("rewrite", prompt_id, rewrite["text"], rewrite["marks"], kept == "rewrite"))
        if kept and not any(text.kept for text in texts):
            texts.append(self._text("kept response", prompt_id, row["kept"], [], True))
        note = f"Kept: the {_SOURCES[kept]}, margin {row['margin']:.3g}." if kept else self._not_kept(row, pair)
        return Example(prompt_text(pair["prompt"]), f"Weights {row['point']}. {note}", texts)

    def _not_kept(self, row: Mapping[str, Any], pair: Mapping[str, Any]) -> str:
        what = _SOURCES[row.get("source", "original")]
        if row["marks"]:
            return f"Not kept: the {what} is {', '.join(row['marks'])}."
        texts = (row["text"], pair["response_0"], pair["response_1"])
        own, *others = (self.rewards.get(text_id(row["prompt_id"], text), {}) for text in texts)
        margins = [(own[name] - other[name], name) for other in others for name in own if name in other]
        if not margins:
            return "Not kept."
        margin, name = min(margins)
        if margin > 0:
            return f"Not kept: the {what} beats both originals, and another candidate of the pair was chosen."
        return f"Not kept: the {what} does not beat both originals under {name} (margin {margin:.3g})."

    def _text(self, title: str, prompt_id: str, text: str, marks: Sequence[str], kept: bool = False) -> Text:
        found = self.rewards.get(text_id(prompt_id, text), {})
        rewards = {name: found[f"policy:{name}"] for name in self.objectives if f"policy:{name}" in found}
        return Text(title, text, rewards, marks, kept)


def spread(rows: Sequence[Any], count: int) -> list[Any]:
    """Return `count` of `rows` at even distances, so that no end of the data is shown alone."""
    count = max(0, min(count, len(rows)))
    return [rows[index * len(rows) // count] for index in range(count)]
