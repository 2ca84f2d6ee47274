"""The checkpoint of the best validation."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from sipo_pl.training.zero import is_zero


class BestCheckpoint(ModelCheckpoint):
    """Keeps the weights of the lowest monitored value, also where the run folder was moved in the middle of a fit.

    Args:
        path: the file
        monitor: what it is the lowest of
    """

    def __init__(self, path: Path, monitor: str) -> None:
        super().__init__(
            path.parent,
            path.stem,
            monitor=monitor,
            enable_version_counter=False,
            save_on_train_epoch_end=False,  # the weights that were validated, not those of the epoch's end
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self.save_weights_only = is_zero(trainer.strategy)  # whole, in one file; the rest is divided over devices

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state whose paths may be those of another place, where the trainer would forget the best."""

        def here(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        paths = {key: here(state_dict[key]) for key in ("best_model_path", "kth_best_model_path", "last_model_path")}
        best = {here(path): value for path, value in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **paths, "best_k_models": best, "dirpath": self.dirpath})
