"""What `inspect` prints."""

from rich.console import Console
from rich.text import Text

from sipo_pl.storage.json_lines import read_json
from sipo_pl.use.chat_screen import printable
from sipo_pl.use.row_view import Inspection, SeenRow, SeenText
from sipo_pl.use.token_view import CHANGED, LEARNED, PROMPT, SPECIAL, token_line


def show(seen: SeenRow, asked: Inspection, stage: str, console: Console) -> None:
    """Print a row: tokens by part, merges, special tokens, notes, and what the stage leaves out."""
    tokenizer = asked.template.tokenizer
    console.print(
        f"{stage}, row {asked.row} of {seen.count} in {seen.path}: {printable(seen.row_id)}",
        style="bold",
        soft_wrap=True,
    )
    legend = Text("tokens: ")
    for name, style in (("prompt", PROMPT), ("learned", LEARNED), ("special", SPECIAL), ("merged", CHANGED)):
        legend.append(f" {name} ", style)
    console.print(legend)
    for text in seen.texts:
        response = text.ids[text.prompt_length :]
        learned = f"; response of {len(response)}, EOS included" if response else ""
        console.print(f"\n{text.name}: {len(text.ids)} tokens; prompt of {text.prompt_length}{learned}", style="bold")
        console.print(token_line(tokenizer, text.ids[: text.prompt_length], PROMPT), soft_wrap=True)
        if response:
            console.print(token_line(tokenizer, response, LEARNED, text.changed), soft_wrap=True)
        for note in _notes(text, asked):
            console.print(note, style="yellow")
    console.print()
    for note in seen.notes:
        console.print(printable(note), soft_wrap=True)
    _left_out(seen, asked, console)


def _notes(text: SeenText, asked: Inspection) -> list[str]:
    """Return what is particular about a text's special tokens and the border of prompt and response."""
    tokenizer, notes = asked.template.tokenizer, []
    bos, eos, ends = tokenizer.bos_token_id, asked.template.eos_id, asked.template.end_ids
    if bos is not None and text.ids[:2] == [bos, bos]:
        notes.append("begins with BOS twice")
    elif bos is not None and text.ids[0] != bos:
        notes.append("does not begin with BOS, which this tokenizer knows")
    if len(text.ids) > text.prompt_length and text.ids[-1] not in ends:
        notes.append(f"does not end in EOS, token {eos}")
    if text.merged:
        alone = token_line(tokenizer, text.alone[text.prompt_length :], "").plain
        notes.append(
            f"boundary merge: the prompt alone ends in {alone} and with the response in other tokens, which count as "
            "the response's"
        )
    return notes


def _left_out(seen: SeenRow, asked: Inspection, console: Console) -> None:
    console.print("\nleft out by this stage:", style="bold")
    for reason, count in sorted(seen.left_out.items()):
        console.print(f"  {count:>6} of {seen.count}  {reason}")
    if not seen.left_out:
        console.print("  nothing")
    statistics = asked.recipe.layout.stage("prepare") / "statistics.json"
    if statistics.exists():
        console.print("left out by prepare:", style="bold")
        dropped = [
            f"  {count:>6}  {split}: {reason}"
            for split, reasons in read_json(statistics)["dropped"].items()
            for reason, count in reasons.items()
        ]
        console.print("\n".join(dropped) or "  nothing")
