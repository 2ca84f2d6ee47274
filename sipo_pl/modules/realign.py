"""Re-alignment: each policy trained again, with DPO + NLL, on the Pareto-better responses."""

from pathlib import Path

from lightning.pytorch.cli import OptimizerCallable

from sipo_pl.losses import DPOWithNLL, PreferenceLoss
from sipo_pl.modules.preference import LoRASettings, PreferenceModule
from sipo_pl.recipe import Recipe


class Realignment(PreferenceModule):
    """Re-aligns a policy: base and first adapter are frozen and are the reference, a new adapter trains on top.

    The result is written as one adapter of concatenated ranks on the base model, which is the same function.

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
        loss: PreferenceLoss = DPOWithNLL(),  # noqa: B008 (frozen)
        lora: LoRASettings = LoRASettings(),  # noqa: B008 (never changed)
        warmup: float = 0.1,
        reference_batch_rows: int = 16,
        tolerance: float = 1e-2,
    ) -> None:
        super().__init__(recipe, objective, loss, lora, optimizer, warmup, reference_batch_rows, tolerance)

    @property
    def first_adapter(self) -> Path:
        return self.recipe.layout.adapter("align", self.objective)
