"""Modules that moved: their earlier names, in configs, manifests and other people's code, mean the new ones.

A class path such as ``sipo_pl.losses.DPO`` stands in recipes, in recorded configs and in manifests that were written
before the move, and custom losses import from ``sipo_pl.losses``. All of them go on.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any

PACKAGE = "sipo_pl"
# Earlier name -> present name, below the package: modules that documents named, with all that is below them, and those
# of the packages `data`, `modules`, `policies` and `prompts` that scripts may import.
MOVED = {
    "api": "use.api",
    "artifacts": "storage",
    "components": "recipe.components",
    "data.division": "data.prepared_splits",
    "data.kept": "data.previous_round",
    "data.labels": "rewards.labels",
    "data.map_batches": "released.map_batches",
    "data.marks": "text.marks",
    "data.preference_data": "data.datamodules.preference_data",
    "data.scored_data": "data.datamodules.scored_data",
    "data.sft_data": "data.datamodules.sft_data",
    "data.templates": "text.templates",
    "data.unit_data": "data.datamodules.unit_data",
    "divergences": "method.divergences",
    "errors": "messages.errors",
    "functions": "use.functions",
    "fusion": "method.fusion",
    "losses": "method.losses",
    "modules.answer": "prediction.answer",
    "modules.dpo": "training.dpo",
    "modules.fit": "training.fit",
    "modules.judge": "prediction.judge",
    "modules.lora_fit": "training.lora_fit",
    "modules.margins": "training.margins",
    "modules.measure": "prediction.measure",
    "modules.prediction": "prediction.base",
    "modules.preference": "training.preference",
    "modules.raco": "training.raco",
    "modules.realign": "training.realign",
    "modules.review": "prediction.review",
    "modules.reward_model": "training.reward_model",
    "modules.rewrite": "prediction.rewrite",
    "modules.sample": "prediction.sample",
    "modules.schedule": "training.schedule",
    "modules.score": "prediction.score",
    "modules.sft": "training.sft",
    "modules.weighted": "training.weighted",
    "policies.adapters": "engine.lora.adapters",
    "policies.attention": "engine.decoding.attention",
    "policies.attention_cuda": "engine.decoding.attention_cuda",
    "policies.beams": "engine.decoding.beams",
    "policies.checkpoint_files": "engine.models.files",
    "policies.checkpointing": "engine.models.activation_checkpointing",
    "policies.compiled": "engine.models.compilation",
    "policies.decoding": "engine.decoding.options",
    "policies.distance": "engine.decoding.distance",
    "policies.divided": "engine.models.zero3",
    "policies.forwards": "engine.logprobs.token_budget",
    "policies.fused_rows": "engine.decoding.fused_rows",
    "policies.generation": "engine.decoding.generation",
    "policies.graphed": "engine.logprobs.cuda_graphs",
    "policies.grouped": "engine.lora.groups",
    "policies.kl": "engine.decoding.kl",
    "policies.loading": "engine.models.loading",
    "policies.logprobs": "engine.logprobs.response_logprobs",
    "policies.lora": "engine.lora.stack",
    "policies.merge": "engine.models.merge",
    "policies.noise": "engine.decoding.noise",
    "policies.packed": "engine.logprobs.packed_sequences",
    "policies.packed_attention": "engine.logprobs.packed_attention",
    "policies.padded": "engine.logprobs.padding",
    "policies.policies": "engine.lora.policies",
    "policies.quantized": "engine.models.quantization",
    "policies.reference": "engine.logprobs.reference_cache",
    "policies.room": "engine.memory_budget",
    "policies.segments": "engine.decoding.segments",
    "policies.shared_prompts": "engine.logprobs.shared_prompts",
    "policies.slot_sizes": "engine.decoding.slot_sizes",
    "policies.slots": "engine.decoding.slots",
    "policies.spread": "engine.models.device_map",
    "policies.streaming": "engine.decoding.streaming",
    "policies.text_stream": "text.text_stream",
    "policies.to_safetensors": "engine.models.to_safetensors",
    "prompts": "text.prompts",
    "selection": "method.selection",
    "weights": "method.weights",
    "zero": "training.zero",
}
GONE = {f"{PACKAGE}.{name}" for name in ("modules", "policies")}  # packages of which only earlier names are left


def current_name(name: str) -> str:
    """Return the present name of a module, or of what is in one, whose earlier name this may be."""
    package, _, inside = name.partition(".")
    if package != PACKAGE:
        return name
    parts = inside.split(".")
    for end in range(len(parts), 0, -1):
        if found := MOVED.get(".".join(parts[:end])):
            return ".".join([PACKAGE, found, *parts[end:]])
    return name


def with_current_names(value: Any) -> Any:
    """Return a JSON-like value in which each `class_path`, at any depth, has its present name."""
    if isinstance(value, dict):
        return {
            key: current_name(one) if key == "class_path" and isinstance(one, str) else with_current_names(one)
            for key, one in value.items()
        }
    return [with_current_names(one) for one in value] if isinstance(value, list) else value


class MovedModules(MetaPathFinder, Loader):
    """Finds a module under its earlier name: it is the very module of the present name, not a copy."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a module that moved, or of a package whose modules all did; None for all others."""
        if fullname in GONE:
            return spec_from_loader(fullname, self, is_package=True)
        return spec_from_loader(fullname, self) if current_name(fullname) != fullname else None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Return the module of the present name; nothing for a package that has none."""
        if spec.name in GONE:
            return None
        module = importlib.import_module(current_name(spec.name))
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give the module back its own spec, which the import under another name replaced."""
        if module.__name__ in GONE:
            return
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state


def install() -> None:
    """Let imports find modules under their earlier names. Call once."""
    if not any(isinstance(one, MovedModules) for one in sys.meta_path):
        sys.meta_path.insert(0, MovedModules())
