"""A language model as a judge of two responses: which of them it would name, asked in both orders."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from sipo_pl.engine.logprobs.response_logprobs import decoder, logits_of
from sipo_pl.engine.models.model_check import check_logits, own_forward
from sipo_pl.interop.numbers import IntFromTwo
from sipo_pl.interop.pretrained import read_weights
from sipo_pl.messages.errors import SettingError
from sipo_pl.rewards.model_reward import model_hash
from sipo_pl.rewards.scorer import Scorer, ScorerSettings
from sipo_pl.storage.hashes import content_hash
from sipo_pl.text.prompt import Prompt, TextRow
from sipo_pl.text.reward_template import TextTemplate, plain_prompt

FIELDS = ("prompt", "first", "second")
ANSWERS = ("A", "B")
TEMPLATE_FILE = Path(__file__).with_name("judge_template.txt")


class Contest(NamedTuple):
    """Two responses to a prompt.

    Args:
        prompt: the raw prompt, text or one message of the user
        first: a response
        second: the one that it is compared with
    """

    prompt: Prompt
    first: str
    second: str


class JudgeScorer(Scorer):
    """The logits of the answers A and B behind a question that the model's chat template puts, (rows, 2)."""

    def check_checkpoint(self, folder: Path) -> None:
        found = [self.tokenizer(answer, add_special_tokens=False)["input_ids"] for answer in ANSWERS]
        if any(len(ids) != 1 for ids in found):
            raise SettingError("model", f"{self.settings.model!r}: {ANSWERS} are not a token each")
        self.answers = [ids[0] for ids in found]

    def load_model(self, folder: Path, dtype: torch.dtype) -> PreTrainedModel:
        model = read_weights(AutoModelForCausalLM, folder, self.label, config=self.config, dtype=dtype).eval()
        check_logits(model, own_forward(model, self.label), self.label)
        return model

    def text(self, row: TextRow) -> str:
        question = [{"role": "user", "content": row.response}]
        assert self.chat is not None
        return self.chat.render(question)

    def forward(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        assert self.model is not None
        hidden = decoder(self.model)(input_ids=input_ids, attention_mask=mask, use_cache=False).last_hidden_state
        ends = hidden[torch.arange(len(mask), device=mask.device), mask.sum(dim=1) - 1]
        return logits_of(self.model, ends)[:, self.answers]


class LocalJudge:
    """Compares responses by what a chat model would answer, in both orders, so that its taste for a place cancels.

    Args:
        model: folder or hub name
        template_file: text file of the question with {prompt}, {first} and {second}; the shipped one where not given
        dtype: dtype of the model: float32, bfloat16 or float16
        device: where it runs; the accelerator where there is one, if not given
        batch_tokens: tokens of one forward at most, padding included
        max_length: longest question in tokens, longer ones are cut in front; the model's positions where not given
    """

    environment_keys: ClassVar[tuple[str, ...]] = ("device", "batch_tokens")

    def __init__(
        self,
        model: str,
        template_file: str | None = None,
        dtype: str = "bfloat16",
        device: str | None = None,
        batch_tokens: IntFromTwo = 8192,
        max_length: IntFromTwo | None = None,
    ) -> None:
        path = Path(template_file) if template_file is not None else TEMPLATE_FILE
        try:
            text = path.read_text(encoding="utf-8").removesuffix("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingError("template_file", f"{path}: {getattr(error, 'strerror', None) or error}") from None
        self.text, self.template = text, TextTemplate(text, "template_file", FIELDS)
        # the tokenizer's chat template puts the question
        self.scorer = JudgeScorer(ScorerSettings(model, None, "template_file", dtype, device, batch_tokens, max_length))

    @property
    def hashes(self) -> Mapping[str, str]:
        """Return content hashes of what verdicts depend on."""
        return {"model": model_hash(self.scorer.settings.model), "template": content_hash(self.text)}

    def load(self) -> None:
        """Load the model."""
        self.scorer.load()

    def free(self) -> None:
        """Let go of the model."""
        self.scorer.model = None

    def win_rates(self, contests: Sequence[Contest]) -> list[float]:
        """Return the probability that the judge prefers the first response of each, the mean of both orders."""
        asked = [self._row(one.prompt, one.first, one.second) for one in contests]
        turned = [self._row(one.prompt, one.second, one.first) for one in contests]
        if not contests:
            return []
        logits = self.scorer.outputs([*asked, *turned])
        first_named, first_turned = (logits[:, 0] - logits[:, 1]).sigmoid().chunk(2)
        wins: list[float] = ((first_named + 1 - first_turned) / 2).tolist()
        return wins

    def _row(self, prompt: Prompt, first: str, second: str) -> TextRow:
        question = self.template.fill_in({"prompt": plain_prompt(prompt), "first": first, "second": second})
        return TextRow("", question)
