"""Policies to be used: those of a run folder, or of a folder that `export` wrote."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sipo_pl.engine.decoding.options import Decoding
from sipo_pl.engine.lora.adapters import read_adapter
from sipo_pl.engine.lora.policies import Policy, read_policies
from sipo_pl.engine.models.made_over import check_files, difference
from sipo_pl.messages.errors import UserError
from sipo_pl.method.divergences import Divergence
from sipo_pl.recipe.divergence import recipe_divergence
from sipo_pl.recipe.recipe import AlignmentStage, Recipe, Template
from sipo_pl.storage.hashes import same_hash
from sipo_pl.storage.model_hashes import resolve_base_model, tokenizer_hash, weights_hash
from sipo_pl.use.divergence_class import exported_divergence, named_by_user
from sipo_pl.use.fusion_file import FUSION_FILE, FusionFile
from sipo_pl.use.run_folder import evaluation_decoding, kept_stage, read_recipe

log = logging.getLogger("sipo_pl")


@dataclass(frozen=True)
class Source:
    """Policies with all that fusing them needs.

    Args:
        folder: where they come from
        names: the objectives, in the order of weights
        policies: one for each
        template: how a prompt is put to the model
        divergence: its rule fuses
        beta: scale of the implicit reward
        dtype: dtype of the base models
        seed: seed of the run
        decoding: how the run's evaluation decoded
        weights: the weights that were exported; none for a run folder
        recipe: the run's, with the stage of the policies; none for an exported folder
    """

    folder: Path
    names: tuple[str, ...]
    policies: tuple[Policy, ...]
    template: Template
    divergence: Divergence
    beta: float
    dtype: Literal["float32", "bfloat16"]
    seed: int
    decoding: Decoding
    weights: tuple[float, ...] | None = None
    recipe: tuple[Recipe, AlignmentStage] | None = None

    @property
    def base_models(self) -> tuple[str, ...]:
        """Return the base models, each once, that of the first policy first."""
        return tuple(dict.fromkeys(policy.base_model for policy in self.policies))


def open_source(
    folder: Path,
    *,
    base_model: str | None = None,
    policies: AlignmentStage | None = None,
    divergence: str | None = None,
) -> Source:
    """Read the policies of a run folder, or of an exported one.

    Args:
        folder: a run folder, or one with a `fusion.json`.
        base_model: folder or hub name in the place of the base model that the folder names.
        policies: of a run folder, the stage whose policies are taken; realign where that is complete.
        divergence: import path of the class that fuses, where it is none of this package: exported policies need it,
            since they may come from anywhere. The config of a run folder names it already; its module may have moved.

    Raises:
        UserError: neither kind of folder, a policy that is missing or damaged, or a base model that is another one.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    if (folder / FUSION_FILE).is_file():
        if policies is not None:
            raise UserError(f"{folder}: holds exported policies, among which there is no {policies!r} to choose")
        return _exported(folder, base_model, divergence)
    for file, kind in (("adapter_config.json", "an adapter"), ("model.safetensors", "a model")):
        if (folder / file).is_file():
            raise UserError(
                f"{folder}: {kind}, to be loaded with transformers or peft; fused are the policies of a run folder, or "
                f"those that `sipo_pl export --kinds policies` wrote"
            )
    return _of_run(folder, base_model, policies, divergence)


def _of_run(folder: Path, base_model: str | None, policies: AlignmentStage | None, divergence: str | None) -> Source:
    recipe = read_recipe(folder)
    recipe = replace(recipe, divergence=named_by_user(recipe.divergence, divergence, str(folder)))
    kept: AlignmentStage = policies or ("realign" if kept_stage(recipe) == "realign" else "align")
    found = read_policies(recipe, kept, checked=False)
    for policy in found:
        assert policy.source is not None
        check_files(policy.source)
        _refuse_other(base := base_model or policy.base_model, difference(policy.source, base), base_model)
    return Source(
        folder,
        tuple(recipe.objective_names),
        _over(found, base_model),
        recipe.dated_template,
        recipe_divergence(recipe),
        recipe.beta,
        recipe.dtype,
        recipe.seed,
        evaluation_decoding(recipe, kept),
        recipe=(recipe, kept),
    )


def _exported(folder: Path, base_model: str | None, divergence: str | None) -> Source:
    path = folder / FUSION_FILE
    file = FusionFile.read(folder)
    file.check_files(folder)
    found = []
    for name in file.objectives:
        told = file.policies[name]
        adapter = folder / told["adapter"]
        if not adapter.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{path}: adapter {told['adapter']!r} lies outside the folder")
        _check_exported(file, told["base_model"], base_model)
        found.append(Policy(told["base_model"], read_adapter(adapter).factors, adapter))
    return Source(
        folder,
        tuple(file.objectives),
        _over(found, base_model),
        file.template,
        exported_divergence(file.divergence, divergence, str(path)),
        file.beta,
        file.dtype,
        0,
        file.decoding,
        tuple(file.weights),
    )


def _over(policies: list[Policy], base_model: str | None) -> tuple[Policy, ...]:
    """Return the policies over another base model, where one is given."""
    if base_model is None:
        return tuple(policies)
    if len(named := {policy.base_model for policy in policies}) > 1:
        raise UserError(
            f"base_model: these policies are over {len(named)} base models, so that one cannot replace them"
        )
    return tuple(policy._replace(base_model=base_model) for policy in policies)


def _refuse_other(base_model: str, how: str | None, given: str | None) -> None:
    """Refuse a base model that differs from the one that a policy was trained on.

    A model that the user names may be the same one, written by other software: there it is a warning.
    """
    if how is None:
        return
    message = f"base_model {base_model!r}: not the model that the policies were trained on: {how}"
    if given is None:
        raise UserError(f"{message}; --base_model names another")
    log.warning("%s", message)


def _check_exported(file: FusionFile, named: str, given: str | None) -> None:
    """Hold a base model, where it is a folder, against what an exported folder says of it."""
    base_model = given or named
    if not Path(resolve_base_model(base_model)).is_dir():
        return
    for hashes, hash_of, how in (
        (file.base_hashes, weights_hash, "its weights or config differ"),
        (file.tokenizer_hashes, tokenizer_hash, "its tokenizer differs"),
    ):
        if (expected := hashes.get(named)) and not same_hash(expected, hash_of(base_model)):
            _refuse_other(base_model, how, given)
