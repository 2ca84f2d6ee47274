"""First alignment: one LoRA policy per objective, trained with DPO on the base model."""

from typing import Any

from sipo_pl.method.losses import DPO, PreferenceLoss
from sipo_pl.training.preference import PreferenceModule


class DPOAlignment(PreferenceModule):
    """Aligns the base model on one objective; the reference is the base model.

    Args:
        loss: loss of a pair
    """

    def __init__(self, *args: Any, loss: PreferenceLoss = DPO(), **kwargs: Any) -> None:  # noqa: B008 (frozen)
        super().__init__(*args, loss=loss, **kwargs)  # type: ignore[misc]
