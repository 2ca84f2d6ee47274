"""First alignment: one LoRA policy per objective, trained with DPO on the base model."""

from lightning.pytorch.cli import OptimizerCallable

from sipo_pl.losses import DPO, PreferenceLoss
from sipo_pl.modules.preference import LoRASettings, PreferenceModule
from sipo_pl.recipe import Recipe


class DPOAlignment(PreferenceModule):
    """Aligns the base model on one objective; the reference is the base model.

    Args:
        recipe: what the stages share
        objective: whose policy is trained
        optimizer: optimizer of the LoRA ranks
        loss: loss of a pair's log-probabilities
        lora: the ranks in training
        warmup: share of the optimizer steps that warm up, before a cosine to zero
        reference_batch_rows: rows in one forward when reference log-probabilities are computed
        tolerance: largest difference in log-probability per token between untrained policy and cached reference
    """

    def __init__(
        self,
        recipe: Recipe,
        objective: str,
        optimizer: OptimizerCallable,
        loss: PreferenceLoss = DPO(),  # noqa: B008 (frozen)
        lora: LoRASettings = LoRASettings(),  # noqa: B008 (never changed)
        warmup: float = 0.1,
        reference_batch_rows: int = 16,
        tolerance: float = 1e-2,
    ) -> None:
        super().__init__(recipe, objective, loss, lora, optimizer, warmup, reference_batch_rows, tolerance)

    @property
    def first_adapter(self) -> None:
        return None
