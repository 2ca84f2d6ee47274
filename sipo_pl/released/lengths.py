"""The length filter that tokenises prompt and response apart."""

from typing import TYPE_CHECKING

from sipo_pl.data.lengths import Lengths
from sipo_pl.data.rows import PairRow
from sipo_pl.messages.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class LooseLengths(Lengths):
    """Measures rows as the model will see them, but leaves out those that are too long by `loose_lengths`."""

    def fits(self, row: PairRow, max_length: int) -> bool:
        return max(loose_lengths(self._template.tokenizer, row)) <= max_length


def loose_lengths(tokenizer: "PreTrainedTokenizerBase", row: PairRow) -> tuple[int, int]:
    """Return the tokens of the prompt and of each response, tokenised apart: BOS twice, no template, no EOS.

    Raises:
        UserError: for chat messages, which the released code does not know.
    """
    if not isinstance(row["prompt"], str):
        raise UserError("compat.loose_length_filter: prompts that are chat messages have no text to be measured")
    prompt, first, second = (
        len(tokenizer(text)["input_ids"]) for text in (row["prompt"], row["response_0"], row["response_1"])
    )
    return prompt + first, prompt + second
