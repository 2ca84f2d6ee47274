"""`ZeRO` on CPU processes over gloo, for tests alone: Lightning's own code, less its check for a GPU."""

from typing import Any

import torch
from lightning.fabric.utilities.seed import reset_seed
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy

from sipo_pl.training.zero import ZeRO


class CPUZeRO(ZeRO):
    """Treats a tiny model as DeepSpeed does a large one: the smallest parameters stay whole, few are gathered ahead.

    Args:
        stage: 2 or 3
        offload: whether parameters and optimizer states count as offloaded, which here changes no place
        whole: numbers in the largest parameter that every device keeps whole
        ahead: numbers in the parameters that are gathered before they are needed, or kept until they are again
        live: numbers in all that are gathered, beside a layer's own
    """

    def __init__(
        self,
        stage: int = 2,
        offload: bool = False,
        whole: int = 100,
        ahead: int = 3000,
        live: int = 20_000,
        **options: object,
    ) -> None:
        divided: dict[str, object] = {"stage": stage, "stage3_param_persistence_threshold": whole}
        divided |= {"stage3_prefetch_bucket_size": ahead, "stage3_max_reuse_distance": ahead}
        divided["stage3_max_live_parameters"] = live
        if offload:
            divided |= {"offload_param": {"device": "cpu"}, "offload_optimizer": {"device": "cpu"}}
        super().__init__(config={"zero_optimization": divided, "zero_allow_untested_optimizer": True}, **options)

    def setup_environment(self) -> None:
        DDPStrategy.setup_environment(self)

    def setup_distributed(self) -> None:
        import deepspeed.ops

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # gloo does; this would be compiled first
        reset_seed()
        self.set_world_ranks()
        self._init_deepspeed_distributed()

    @property
    def root_device(self) -> torch.device:
        return torch.device("cpu", self.local_rank)  # DeepSpeed asks for its index


class SaysDtypes(Callback):
    """Says in which dtypes this device holds its part of the weights."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        dtypes: dict[bool, set[str]] = {False: set(), True: set()}
        for parameter in pl_module.parameters():
            dtypes[parameter.requires_grad].add(str(getattr(parameter, "ds_tensor", parameter).dtype))
        print(f"frozen {', '.join(dtypes[False])}, trained {', '.join(dtypes[True])}", flush=True)


class SaysGathered(Callback):
    """Says how many of the frozen weights were there at most, of how many, where somebody gathers parameters."""

    def __init__(self) -> None:
        self.most = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        import deepspeed

        frozen = [one for one in pl_module.parameters() if not one.requires_grad]
        enter = deepspeed.zero.GatheredParameters.__enter__

        def watched(self_: Any) -> None:
            enter(self_)
            self.most = max(self.most, sum(one.numel() for one in frozen))

        self.whole = sum(one.ds_numel for one in frozen)
        deepspeed.zero.GatheredParameters.__enter__ = watched

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        print(f"gathered at once: {self.most} of {self.whole} frozen weights", flush=True)
