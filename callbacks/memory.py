"""Says how much memory a stage took on GPUs."""

import logging

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

log = logging.getLogger("sipo_pl")


class PeakMemory(Callback):
    """Says at the end of a fit or a prediction what its tensors took at most on one GPU, the fullest of all.

    Args:
        label: the stage
    """

    def __init__(self, label: str) -> None:
        self.label = label

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        strategy = trainer.strategy
        if strategy.root_device.type != "cuda":
            return
        # more than one where the layers of a base are spread over them
        taken = max(torch.cuda.max_memory_allocated(index) for index in range(torch.cuda.device_count()))
        most = strategy.reduce(torch.tensor(float(taken), device=strategy.root_device), reduce_op="max")
        if trainer.is_global_zero:
            log.info("%s: peak memory %.2f GiB a GPU", self.label, float(most) / 2**30)
