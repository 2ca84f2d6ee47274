"""Any sequence classifier of transformers as a reward."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from sipo_pl.interop.numbers import FiniteFloat, IntFromTwo, NonNegativeInt
from sipo_pl.interop.pretrained import read_weights
from sipo_pl.interop.transformers import has_sequence_classifier
from sipo_pl.messages.errors import SettingError, UserError, nearest
from sipo_pl.rewards.model_reward import ModelReward
from sipo_pl.rewards.scorer import Scorer, ScorerSettings

_UNUSED = ("lm_head.",)  # of the language model that a classifier was made of


class SequenceClassifier(ModelReward):
    """One logit of a sequence classifier, whose class transformers itself has; remote code never runs.

    Args:
        model: folder or hub name
        output: which logit, by its place or by its name in the model's config (id2label)
        template: text with {prompt} and {response}; the tokenizer's chat template where not given
        scale: factor; -1 where less is better
        shift: added after that
        dtype: dtype of the model: float32, bfloat16 or float16
        device: where it runs; the accelerator where there is one, if not given
        batch_tokens: tokens of one forward at most, padding included
        max_length: longest text in tokens; longer ones are cut in front, behind their first token, and counted in a
            warning; the model's positions where not given
    """

    def __init__(
        self,
        model: str,
        output: NonNegativeInt | str = 0,
        template: str | None = None,
        scale: FiniteFloat = 1.0,
        shift: FiniteFloat = 0.0,
        dtype: str = "float32",
        device: str | None = None,
        batch_tokens: IntFromTwo = 8192,
        max_length: IntFromTwo | None = None,
    ) -> None:
        if not isinstance(output, int | str):
            raise SettingError("output", f"expected the place or name of a logit, found {output!r}")
        settings = ScorerSettings(model, template, "template", dtype, device, batch_tokens, max_length)
        super().__init__(ClassifierScorer, settings, scale, shift)
        self.output = output

    def output_index(self, config: Any) -> int:
        labels = {str(name): int(index) for index, name in config.id2label.items()}
        if isinstance(self.output, str):
            if self.output not in labels:
                found = f"{self.settings.model} has no logit {self.output!r}"
                raise SettingError("output", found + nearest(self.output, labels))
            return labels[self.output]
        if not 0 <= self.output < config.num_labels:
            found = f"{self.settings.model} has the logits 0 to {config.num_labels - 1}"
            raise SettingError("output", f"{found}, not {self.output}")
        return self.output


class ClassifierScorer(Scorer):
    """The logits of a sequence classifier, in float32."""

    def check_checkpoint(self, folder: Path) -> None:
        if not has_sequence_classifier(self.config):
            kind = self.config.model_type
            raise UserError(f"model {self.settings.model!r}: transformers has no sequence classifier for {kind} models")

    def load_model(self, folder: Path, dtype: torch.dtype) -> PreTrainedModel:
        kind = AutoModelForSequenceClassification
        return read_weights(kind, folder, self.label, config=self.config, unused=_UNUSED, dtype=dtype)

    def pad_token(self, ids: list[list[int]]) -> int:
        """Return the model's padding, or, as it finds a row's end by that token, one that the batch does not hold."""
        assert self.model is not None
        if self._own_padding is not None:
            return self._own_padding
        used = {token for one in ids for token in one}
        pad = next(token for token in range(len(used) + 1) if token not in used)
        self.model.config.get_text_config().pad_token_id = pad
        return pad

    @property
    def _own_padding(self) -> int | None:
        pad: int | None = self.config.get_text_config().pad_token_id
        return pad if pad is not None and pad >= 0 else None  # some configs say -1 for none

    def forward(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        assert self.model is not None
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=mask).logits
        return logits
