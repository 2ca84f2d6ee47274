"""Tokens on a terminal: each with its borders, special ones in colour, blanks and line breaks to be seen."""

from collections.abc import Sequence

from rich.text import Text
from transformers import PreTrainedTokenizerBase

BORDER, SPACE, BREAK = "│", "·", "⏎"
SPECIAL, PROMPT, LEARNED, CHANGED = "bold white on red", "cyan", "green", "bold black on yellow"


def token_text(tokenizer: PreTrainedTokenizerBase, token_id: int) -> str:
    """Return a token as it is shown; the vocabulary's own name where it is no text by itself."""
    text = str(tokenizer.decode([token_id], clean_up_tokenization_spaces=False))
    if "\ufffd" in text or not text:
        text = str(tokenizer.convert_ids_to_tokens(token_id))
    text = text.replace("\n", BREAK).replace(" ", SPACE)
    return "".join(one if one.isprintable() else f"<{ord(one):02x}>" for one in text)


def token_line(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], style: str, changed: int = 0) -> Text:
    """Return tokens in a line, special ones and the first `changed` of them in colours of their own."""
    line = Text()
    special = set(tokenizer.all_special_ids)
    for index, token_id in enumerate(ids):
        own = SPECIAL if token_id in special else CHANGED if index < changed else style
        line.append(token_text(tokenizer, token_id), own)
        line.append(BORDER, "dim")
    return line
