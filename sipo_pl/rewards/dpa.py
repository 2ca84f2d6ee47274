"""The reward model of Directional Preference Alignment (arXiv 2402.18571), which measures HelpSteer's attributes."""

from pathlib import Path
from typing import Any

from sipo_pl.interop.numbers import FiniteFloat, IntFromTwo
from sipo_pl.messages.errors import SettingError, UserError, nearest
from sipo_pl.rewards.linear_head import LinearHeadScorer
from sipo_pl.rewards.model_reward import ModelReward
from sipo_pl.rewards.scorer import ScorerSettings

MODEL = "RLHFlow/RewardModel-Mistral-7B-for-DPA-v1"
ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")  # its first outputs
OUTPUTS = 10  # the other five are of UltraFeedback
LOWEST, STEP = 10.0, 20.0  # its scale runs from 0 to 100; HelpSteer's 0 stands at 10, and its steps are 20 apart
SLIDING_WINDOW = 4096  # tokens; its config leaves it out
# the instruction that the model was trained with, as its model card gives it
TEMPLATE_FILE = Path(__file__).with_name("dpa_template.txt")


class DPA(ModelReward):
    """An attribute of HelpSteer on its scale, about 0 to 4: (output - 10) / 20.

    The released evaluation uses float32; bfloat16 halves the memory.

    Args:
        attribute: helpfulness, correctness, coherence, complexity or verbosity
        model: folder or hub name
        template_file: text file with {prompt} and {response}; the model's own instruction,
            `sipo_pl/rewards/dpa_template.txt`, where not given
        scale: factor; -1 where less is better
        dtype: dtype of the model: float32, bfloat16 or float16
        device: where it runs; the accelerator where there is one, if not given
        batch_tokens: tokens of one forward at most, padding included
        max_length: longest text in tokens; longer ones are cut in front, behind their first token, and counted in a
            warning; the model's positions where not given
    """

    def __init__(
        self,
        attribute: str,
        model: str = MODEL,
        template_file: str | None = None,
        scale: FiniteFloat = 1.0,
        dtype: str = "float32",
        device: str | None = None,
        batch_tokens: IntFromTwo = 8192,
        max_length: IntFromTwo | None = None,
    ) -> None:
        if attribute not in ATTRIBUTES:
            raise SettingError("attribute", f"no {attribute!r}{nearest(str(attribute), ATTRIBUTES)}")
        template = _read(Path(template_file) if template_file is not None else TEMPLATE_FILE)
        settings = ScorerSettings(model, template, "template_file", dtype, device, batch_tokens, max_length)
        super().__init__(DPAScorer, settings, scale / STEP, -scale * LOWEST / STEP)
        self.attribute = attribute

    def output_index(self, config: Any) -> int:
        return ATTRIBUTES.index(self.attribute)


class DPAScorer(LinearHeadScorer):
    """Ten outputs of a Mistral model. Its class is remote code: the layer is the one that stands beside the decoder."""

    model_type = "mistral"

    @property
    def labels(self) -> int:
        return OUTPUTS

    def check_checkpoint(self, folder: Path) -> None:
        super().check_checkpoint(folder)
        if (found := self.config.num_labels) != OUTPUTS:
            raise UserError(f"model {self.settings.model!r}: expected {OUTPUTS} labels in its config, found {found}")
        self.config.sliding_window = SLIDING_WINDOW


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError("template_file", f"{path}: {getattr(error, 'strerror', None) or error}") from None
