"""DeepSpeed's ZeRO as fits of adapters need it: a start at the reference, small checkpoints, whole adapters out."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from lightning.pytorch.plugins.precision import DeepSpeedPrecision, Precision
from lightning.pytorch.strategies import DeepSpeedStrategy, StrategyRegistry
from torch import Tensor
from torch.nn import Module

from sipo_pl.engine.models.zero3 import gathered
from sipo_pl.interop.deepspeed import drop_prefetched
from sipo_pl.interop.numbers import PositiveInt
from sipo_pl.messages.errors import UsageError
from sipo_pl.storage.files import remove
from sipo_pl.training.checkpoint_io import AtomicCheckpointIO, read_checkpoint
from sipo_pl.training.fit import Fit

WHOLE = "whole.ckpt"  # within a checkpoint: what does not depend on the number of devices, as a plain checkpoint
DEVICES = "devices"  # key of the number that wrote it
WHOLE_PRECISION: Final = "32-true"  # the trainer's default
BUCKET = 50_000_000  # numbers at once; the ranks in training are few
HELD = 300_000_000  # weights on the GPU at once, beside a layer's own, where they wait in the memory of the CPU

_REGISTERED: dict[str, dict[str, Any]] = {
    "deepspeed_stage_2": {"stage": 2},
    "deepspeed_stage_2_offload": {"stage": 2, "offload_optimizer": True},
    "deepspeed_stage_3": {"stage": 3},
    "deepspeed_stage_3_offload": {"stage": 3, "offload_optimizer": True, "offload_parameters": True},
}


class LoadedPrecision(DeepSpeedPrecision):
    """Leaves every weight in the dtype that it was loaded or made in, as the trainer does with other strategies."""

    def convert_module(self, module: Module) -> Module:
        return module


class ZeRO(DeepSpeedStrategy):
    """Divides optimizer states, gradients and, with stage 3, the base's weights over the devices.

    A checkpoint is a folder of what each device holds, written aside and renamed, with the ranks in training and the
    place in the fit beside it as one plain file, which a fit on another number of devices can start from. A checkpoint
    of weights alone is such a file by itself.

    Args:
        exclude_frozen_parameters: keep the base's weights out of checkpoints
        reduce_bucket_size: gradients that are reduced at once
        allgather_bucket_size: weights that are gathered at once by stages 1 and 2
        options: the others of Lightning's strategy
    """

    def __init__(
        self,
        exclude_frozen_parameters: bool = True,
        reduce_bucket_size: PositiveInt = BUCKET,
        allgather_bucket_size: PositiveInt = BUCKET,
        **options: Any,
    ) -> None:
        super().__init__(
            exclude_frozen_parameters=exclude_frozen_parameters,
            reduce_bucket_size=reduce_bucket_size,
            allgather_bucket_size=allgather_bucket_size,
            **options,
        )
        if isinstance(self.config, dict):  # with offload it would refuse any optimizer but one that it compiles first
            self.config.setdefault("zero_force_ds_cpu_optimizer", False)
            divided = self.config.get("zero_optimization", {})
            if "offload_param" in divided:
                divided.setdefault("stage3_max_live_parameters", HELD)
                divided.setdefault("stage3_max_reuse_distance", HELD)

    @property
    def precision_plugin(self) -> Precision:
        plugin: Precision = super().precision_plugin
        # the trainer's default would turn a base in bfloat16 into float32
        return LoadedPrecision(WHOLE_PRECISION) if plugin.precision == WHOLE_PRECISION else plugin

    @precision_plugin.setter
    def precision_plugin(self, plugin: Precision | None) -> None:
        self._precision_plugin = plugin

    @contextlib.contextmanager
    def model_sharded_context(self) -> Iterator[None]:
        """Let transformers divide the base's weights as it reads them, and leave what is made beside them whole.

        Within DeepSpeed's own context a new B would be divided before it is set to zero, and the fit would not start at
        its reference; it is divided when the engine is made.
        """
        self._init_config_if_needed()
        if not self.zero_stage_3:
            yield
            return
        from transformers.integrations import HfDeepSpeedConfig

        assert isinstance(self.lightning_module, Fit)
        assert isinstance(self.config, dict)
        # of the base alone: the ranks in training, which the engine is told of, are in float32
        in_halves = {"bf16": {"enabled": self.lightning_module.recipe.dtype == "bfloat16"}}
        kept = HfDeepSpeedConfig({**self.config, **in_halves})  # counts as long as it exists
        yield
        del kept

    def _auto_select_batch_size(self) -> int:
        return 1  # of DeepSpeed's own throughput alone, which nothing shows; the loader's batches differ in size

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return what is trained, whole, on the CPU of every device."""
        assert self.lightning_module is not None
        if self.zero_stage_3:
            # what the last forward gathered ahead for a backward pass that never came, as in a validation
            drop_prefetched(self.deepspeed_engine)
        with gathered(one for one in self.lightning_module.parameters() if one.requires_grad):
            state = super().lightning_module_state_dict()
            return {name: value.detach().cpu().clone() for name, value in state.items()}

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        path = Path(self.broadcast(filepath))
        io = AtomicCheckpointIO()
        if "optimizer_states" not in checkpoint:
            if self.is_global_zero:
                io.save_checkpoint(checkpoint, path)
            self.barrier()
            return
        aside = path.with_name(f".{path.name}.aside")
        if self.is_global_zero:
            remove(aside)
        self.barrier()
        super().save_checkpoint(checkpoint, aside)
        self.barrier()
        if self.is_global_zero:
            io.save_checkpoint({**checkpoint, "optimizer_states": [], DEVICES: self.world_size}, aside / WHOLE)
            remove(path)
            aside.replace(path)
        self.barrier()

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        path = Path(checkpoint_path)
        # the module has taken over the weights of a plain file
        return read_checkpoint(path) if path.is_file() else super().load_checkpoint(path, weights_only)


def register() -> None:
    """Let the trainer's names of DeepSpeed's stages 2 and 3 mean `ZeRO`."""
    for name, options in _REGISTERED.items():
        StrategyRegistry.register(name, ZeRO, override=True, description="ZeRO for fits of adapters", **options)


def is_zero(strategy: object) -> bool:
    """Return whether a strategy, or the name or the class path of one, is DeepSpeed's."""
    if isinstance(strategy, DeepSpeedStrategy):
        return True
    name = getattr(strategy, "class_path", strategy)
    return isinstance(name, str) and ("deepspeed" in name.lower() or name.rpartition(".")[2] == ZeRO.__name__)


def resume_path(checkpoint: Path, strategy: object, devices: int, restart_optimizer: bool) -> Path:
    """Return what a fit goes on from: the checkpoint, or the plain file in it where its optimizer begins anew.

    Args:
        checkpoint: file, or folder that `ZeRO` wrote.
        strategy: of the trainer.
        devices: how many there are.
        restart_optimizer: keep the weights and the place in the fit, and nothing of the optimizer.

    Raises:
        UsageError: the optimizer's state is divided in another way, and is to be kept.
    """
    divided = checkpoint.is_dir()
    if restart_optimizer:
        return checkpoint / WHOLE if divided else checkpoint
    way = "--restart_optimizer goes on from its adapter, with an optimizer that begins anew"
    if divided != is_zero(strategy):
        made = "with" if divided else "without"
        raise UsageError(f"{checkpoint} was made {made} DeepSpeed, which divides the optimizer's state; {way}")
    if divided and (before := read_checkpoint(checkpoint / WHOLE)[DEVICES]) != devices:
        raise UsageError(f"{checkpoint} was made on {before} devices, found {devices}; use as many, or {way}")
    return checkpoint


def trained_state(checkpoint: Path) -> Mapping[str, Tensor]:
    """Return what was trained, by name, of a plain checkpoint file."""
    state: Mapping[str, Tensor] = read_checkpoint(checkpoint)["state_dict"]
    return state
