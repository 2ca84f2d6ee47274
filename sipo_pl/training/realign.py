"""Re-alignment: each policy trained again, with DPO + NLL, on the Pareto-better responses."""

import logging
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from sipo_pl.engine.lora.adapters import Factors, check_fit, read_adapter, trained_factors, write_adapter
from sipo_pl.engine.models.loading import load_base
from sipo_pl.engine.models.merge import merge, write_model
from sipo_pl.method.losses import DPOWithNLL, PreferenceLoss
from sipo_pl.training.preference import PreferenceModule

log = logging.getLogger("sipo_pl")


class Realignment(PreferenceModule):
    """Re-aligns a policy: base and first adapter are frozen and are the reference, a new adapter trains on top.

    In a round after the first, the adapter of the round before takes the place of the first one.

    The result is written as one adapter of concatenated ranks on the base model, which is the same function. With
    `compat.merged_reference` the first adapter is merged into the base and rounded to the recipe's dtype, as in the
    released code; then that model is written beside the new adapter, which belongs to it and to no other base.

    Args:
        loss: loss of a pair
    """

    def __init__(self, *args: Any, loss: PreferenceLoss = DPOWithNLL(), **kwargs: Any) -> None:  # noqa: B008 (frozen)
        super().__init__(*args, loss=loss, **kwargs)  # type: ignore[misc]

    @property
    def first_adapter(self) -> Path:
        return self.recipe.layout.adapter("align", self.objective)

    def load_frozen(self) -> tuple[PreTrainedModel, Factors]:
        if not self.recipe.compat.merged_reference:
            return super().load_frozen()
        return self._merged_base(), {}

    def _merged_base(self) -> PreTrainedModel:
        first, exact = read_adapter(self.first_adapter, self.base_model).factors, load_base(self.base_model, "float32")
        check_fit(self.first_adapter, first, exact)
        log.info("%s merged in memory: %s", self.first_adapter, merge(exact, first, self.recipe.dtype))
        model = load_base(self.base_model, self.recipe.dtype)  # a cast would round what the model keeps in float32 too
        model.load_state_dict(exact.state_dict())
        return model

    def adapter(self) -> Factors:
        return trained_factors(self.stack) if self.recipe.compat.merged_reference else super().adapter()

    def write(self, folder: Path) -> list[Path]:
        if not self.recipe.compat.merged_reference:
            return super().write(folder)
        model = folder / "model"
        write_model(self._merged_base(), model, self.recipe.dtype, like=self.base_model)
        write_adapter(folder / "adapter", self.adapter(), base_model=str(model))
        return [folder / "adapter", model]
