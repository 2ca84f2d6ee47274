"""A loaded reward model: texts in, its outputs out, in batches of like lengths."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sipo_pl.engine.memory_budget import MemoryBudget
from sipo_pl.engine.models.files import checkpoint_folder
from sipo_pl.engine.models.text_limit import check_tokens, text_limit
from sipo_pl.interop.pretrained import check_vocabulary, read_config, read_tokenizer
from sipo_pl.messages.errors import SettingError, UserError, nearest
from sipo_pl.text.chat_rendering import ChatTemplate
from sipo_pl.text.prompt import TextRow
from sipo_pl.text.reward_template import TextTemplate, scored_text, text_ids

log = logging.getLogger("sipo_pl")

DTYPES = ("float32", "bfloat16", "float16")
_ANY_TOKEN = 0  # what padding holds under a mask, where no token is reserved for it


@dataclass(frozen=True)
class ScorerSettings:
    """What a reward model is loaded with; objectives with equal settings share it.

    Args:
        model: folder or hub name
        template: text with {prompt} and {response}; the tokenizer's chat template where not given
        template_key: the setting that gave the template, for errors
        dtype: dtype of the weights and of the forward
        device: where it runs; the accelerator where there is one, if not given
        batch_tokens: tokens of one forward at most, padding included
        max_length: longest text in tokens; as long as the model has positions where not given
    """

    model: str
    template: str | None
    template_key: str
    dtype: str
    device: str | None
    batch_tokens: int
    max_length: int | None

    def __post_init__(self) -> None:
        for key, text in (("model", self.model), (self.template_key, self.template)):
            if text is not None and not (isinstance(text, str) and text):
                raise SettingError(key, f"expected a text, found {text!r}")
        if self.dtype not in DTYPES:
            raise SettingError("dtype", f"{self.dtype!r} is none{nearest(str(self.dtype), DTYPES)}")
        if self.template is not None:
            TextTemplate(self.template, self.template_key)
        for key in ("batch_tokens", "max_length"):
            value = getattr(self, key)
            if value is not None and (not isinstance(value, int) or value < 2):
                raise SettingError(key, f"expected a number of tokens from 2 on, found {value!r}")
        if self.device is not None:
            try:
                torch.device(self.device)
            except (RuntimeError, TypeError):
                raise SettingError("device", f"{self.device!r} is none, such as cpu or cuda:0") from None


class Scorer(ABC):
    """A model that gives each text some outputs.

    Args:
        settings: what it is loaded with
    """

    def __init__(self, settings: ScorerSettings) -> None:
        self.settings = settings
        self.template = TextTemplate(settings.template) if settings.template is not None else None
        self.model: PreTrainedModel | None = None
        self._scored: tuple[list[TextRow], Tensor] | None = None
        self._open = False
        self.now = datetime.now().replace(microsecond=0)  # what a chat template that shows the date takes for it
        self.chat: ChatTemplate | None = None  # where there is no template
        self.memory_budget = MemoryBudget()

    @property
    def label(self) -> str:
        """Return what messages about the model begin with."""
        return f"model {self.settings.model!r}"

    def check(self) -> None:
        """Read config and tokenizer and check them, and the names of the tensors where the weights are at hand."""
        if self._open:
            return
        name = self.settings.model
        folder = checkpoint_folder(name, weights=False)
        self.config, self.tokenizer = read_config(folder, self.label), read_tokenizer(folder, self.label)
        check_vocabulary(self.tokenizer, self.config, self.label)
        if self.template is None and not self.tokenizer.chat_template:
            raise SettingError("template", f"the tokenizer of {name!r} has no chat template; give one")
        if self.template is None:
            self.chat = ChatTemplate(self.tokenizer, self.now, f"the chat template of {name!r}")
        self.check_checkpoint(folder)
        self._open = True

    def load(self) -> None:
        """Load the weights, once."""
        if self.model is not None:
            return
        self.check()
        folder = checkpoint_folder(self.settings.model, weights=True)
        model = self.load_model(folder, getattr(torch, self.settings.dtype))
        self.device = torch.device(self.settings.device or default_device())
        self.model = model.requires_grad_(False).eval().to(self.device)

    def outputs(self, rows: Sequence[TextRow]) -> Tensor:
        """Return the outputs of each row; those of the rows of the last call are kept for the next objective.

        Returns:
            (rows, outputs), float32, on the CPU.
        """
        rows = list(rows)
        if self._scored is None or self._scored[0] != rows:
            self._scored = rows, self._compute(rows)
        return self._scored[1]

    def text(self, row: TextRow) -> str:
        """Return what the model reads of a row."""
        return scored_text(self.chat, self.template, row)

    def _compute(self, rows: list[TextRow]) -> Tensor:
        assert self.model is not None
        ids = self._cut([text_ids(self.tokenizer, self.template, self.text(row)) for row in rows])
        if not all(ids):
            raise UserError(f"model {self.settings.model!r}: a text without tokens; let the template hold some text")
        if (known := getattr(self.config.get_text_config(), "vocab_size", None)) and ids:
            check_tokens(max(map(max, ids)), known, f"{self.label}: a text")
        found: dict[int, Tensor] = {}

        def score(tokens: int) -> None:
            missing = [index for index in range(len(ids)) if index not in found]
            for chosen in length_batches([len(ids[index]) for index in missing], tokens):
                batch = [missing[index] for index in chosen]
                input_ids, mask = self._pad([ids[index] for index in batch])
                with torch.inference_mode():
                    values = self.forward(input_ids.to(self.device), mask.to(self.device)).float().cpu()
                found.update(zip(batch, values, strict=True))

        self.memory_budget.run("init_args.batch_tokens", self.settings.batch_tokens, score)
        return torch.stack([found[index] for index in range(len(ids))]) if ids else torch.empty(0, 0)

    def _cut(self, ids: list[list[int]]) -> list[list[int]]:
        """Cut the front of texts that are too long, behind their first token: the response and its end matter most."""
        assert self.model is not None
        limit = self.settings.max_length or getattr(self.config, "max_position_embeddings", None)
        if model_limit := text_limit(self.model):
            limit = min(limit or model_limit.tokens, model_limit.tokens)
        if limit is None:
            return ids
        if long := sum(len(one) > limit for one in ids):
            message = "%s: %d of %d texts are longer than %d tokens and cut in front"
            log.warning(message, self.settings.model, long, len(ids), limit)
        return [one if len(one) <= limit else [one[0], *one[len(one) - limit + 1 :]] for one in ids]

    def _pad(self, ids: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Return the token ids, padded on the right, and their mask: (rows, longest), int64 both."""
        longest = max(map(len, ids))
        pad = self.pad_token(ids)
        input_ids = torch.tensor([[*one, *[pad] * (longest - len(one))] for one in ids])
        mask = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in ids])
        return input_ids, mask

    def pad_token(self, ids: list[list[int]]) -> int:
        """Return the token that fills up the rows of a batch."""
        return _ANY_TOKEN

    @abstractmethod
    def check_checkpoint(self, folder: Path) -> None:
        """Check config and tensors' names of the folder."""

    @abstractmethod
    def load_model(self, folder: Path, dtype: torch.dtype) -> PreTrainedModel:
        """Load the weights of the folder, safetensors only, without running code of theirs."""

    @abstractmethod
    def forward(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """Return the outputs of token ids that are padded on the right: (rows, outputs)."""


def length_batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Yield indices, longest first, in batches of at most `budget` tokens with their padding, or of one row."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    while order:
        rows = max(budget // max(lengths[order[0]], 1), 1)
        yield order[:rows]
        order = order[rows:]


def default_device() -> str:
    """Return the accelerator of this process where there is one, else the CPU."""
    if torch.cuda.is_available():
        return "cuda"  # the trainer has set which one is this process's
    return "mps" if torch.backends.mps.is_available() else "cpu"
