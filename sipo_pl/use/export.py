"""A weight of a run as models for other tools: adapters, a merged model, or the policies and how to fuse them."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from transformers import GenerationConfig

from sipo_pl.engine.lora.adapters import Factors, check_fit, interpolate, weighted_sum, write_adapter
from sipo_pl.engine.models.loading import load_base, load_outline
from sipo_pl.engine.models.merge import Drift, Dtype, merge, write_model
from sipo_pl.messages.errors import UserError
from sipo_pl.storage.files import atomic_path
from sipo_pl.storage.json_lines import read_jsonl
from sipo_pl.storage.model_hashes import resolve_base_model, tokenizer_hash, weights_hash
from sipo_pl.text.templates import PromptTemplate
from sipo_pl.text.tokenizers import load_template, load_tokenizer
from sipo_pl.use.card import Card, card
from sipo_pl.use.chat_template import as_chat_template, differing
from sipo_pl.use.fidelity import measure
from sipo_pl.use.fusion_file import FORMAT, FusionFile, component_of
from sipo_pl.use.scores import read_scores
from sipo_pl.use.source import Source

log = logging.getLogger("sipo_pl")

ExportKind = Literal["interpolated", "sum", "merged", "policies"]
KINDS: tuple[ExportKind, ...] = ("interpolated", "sum", "merged", "policies")


@dataclass(frozen=True)
class Plan:
    """What is exported.

    Args:
        kinds: which folders
        weights: one for each objective
        base_name: what cards and adapters call the base model; its folder or hub name where not given
        dtype: dtype of a merged model; the run's where not given
        prompts: test prompts on which the distance from fusion is measured
        max_new_tokens: longest answer there
    """

    kinds: tuple[ExportKind, ...]
    weights: tuple[float, ...]
    base_name: str | None = None
    dtype: Dtype | None = None
    prompts: int = 32
    max_new_tokens: int = 64


def available_kinds(source: Source, asked: Sequence[ExportKind] | None) -> tuple[ExportKind, ...]:
    """Return the kinds that a source can be exported as, or those that were asked for.

    Raises:
        UserError: a kind that was asked for and is none of them.
    """
    reasons: dict[ExportKind, str] = {}
    if len(source.base_models) > 1:
        why = "the policies are over base models of their own, so that no single model stands for a weight"
        reasons = dict.fromkeys(("interpolated", "sum", "merged"), why)
    else:
        try:
            interpolate([policy.factors for policy in source.policies], [1.0] * len(source.policies))
        except UserError as error:
            reasons["interpolated"] = str(error)
    for kind, why in reasons.items():
        if asked and kind in asked:
            raise UserError(f"--kinds {kind}: {why}")
        log.info("export: not %s: %s", kind, why)
    return tuple(kind for kind in asked or KINDS if kind not in reasons)


def export_folders(source: Source, plan: Plan, out: Path) -> dict[ExportKind, Path]:
    """Measure how near each kind is to fusion, and write a folder of each below `out`; return them.

    Args:
        source: the policies of a run.
        plan: what is written.
        out: folder of the folders.
    """
    assert source.recipe is not None
    recipe, kept = source.recipe
    for policy in source.policies:
        check_fit(policy.source or source.folder, policy.factors, load_outline(policy.base_model))
    template = load_template(source.base_models[0], source.template)
    factors = [policy.factors for policy in source.policies]
    models: dict[str, Factors] = {}
    if "interpolated" in plan.kinds:
        models["interpolated"] = interpolate(factors, plan.weights)
    if {"sum", "merged"} & set(plan.kinds):
        models["sum"] = weighted_sum(factors, plan.weights)
    found = measure(
        source, recipe, template, plan.weights, models, prompts=plan.prompts, max_new_tokens=plan.max_new_tokens
    )
    writer = _Writer(source, plan, template)
    ends = sorted(template.end_ids)
    scores = read_scores(recipe, kept, plan.weights)
    folders: dict[ExportKind, Path] = {}
    for kind in plan.kinds:
        folders[kind] = out / kind
        with atomic_path(folders[kind]) as aside:
            drift = writer.write(kind, aside, models)
            writer.add_tokenizer(aside)
            base, other = writer.base_name, writer.other_tokens
            text = card(Card(kind, source, plan.weights, base, scores, found, drift, other, ends))
            (aside / "README.md").write_text(text, encoding="utf-8")
        log.info("export: %s", folders[kind])
    return folders


class _Writer:
    """Writes what the folders hold beside their cards."""

    def __init__(self, source: Source, plan: Plan, template: PromptTemplate) -> None:
        self.source, self.plan, self.template = source, plan, template
        self.base = source.base_models[0]
        self.base_name = plan.base_name or _absolute(resolve_base_model(self.base))
        self.tokenizer = load_tokenizer(self.base)
        self.tokenizer.chat_template = as_chat_template(template)
        path = source.recipe[0].layout.test_prompts if source.recipe else None
        rows = read_jsonl(path, ["prompt"]) if path and path.exists() else []
        single = [row["prompt"] for row in rows if isinstance(row["prompt"], str)]
        self.other_tokens = differing(template, self.tokenizer, single)
        if self.other_tokens:
            log.warning(
                "export: the chat template gives other tokens than the run for %d test prompts", self.other_tokens
            )

    def write(self, kind: ExportKind, folder: Path, models: Mapping[str, Factors]) -> Drift | None:
        """Write the weights of a kind into `folder`, which is made; return what merging did."""
        if kind == "merged":
            return self._merged(folder, models["sum"])
        if kind == "policies":
            self._policies(folder)
        else:
            write_adapter(folder, models[kind], base_model=self.base_name)
        return None

    def add_tokenizer(self, folder: Path) -> None:
        """Write tokenizer, chat template and generation config into `folder`."""
        self.tokenizer.save_pretrained(folder)
        self._generation().save_pretrained(folder)

    def _merged(self, folder: Path, factors: Factors) -> Drift:
        dtype = self.plan.dtype or self.source.dtype
        model = load_base(self.base, "float32")
        drift = merge(model, factors, dtype)
        write_model(model, folder, dtype, like=self.base)
        log.info("export: merged in %s: %s", dtype, drift)
        return drift

    def _policies(self, folder: Path) -> None:
        source = self.source
        folder.mkdir()
        told: dict[str, dict[str, str]] = {}
        hashes: dict[str, str] = {}
        tokenizers: dict[str, str] = {}
        for name, policy in zip(source.names, source.policies, strict=True):
            base = (
                self.base_name if policy.base_model == self.base else _absolute(resolve_base_model(policy.base_model))
            )
            write_adapter(folder / "policies" / name, policy.factors, base_model=base)
            told[name] = {"adapter": f"policies/{name}", "base_model": base}
            if Path(resolve_base_model(policy.base_model)).is_dir():
                hashes[base] = weights_hash(policy.base_model)
                tokenizers[base] = tokenizer_hash(policy.base_model)
        FusionFile(
            FORMAT,
            list(source.names),
            told,
            hashes,
            list(self.plan.weights),
            component_of(source.divergence, source.recipe[0].divergence if source.recipe else None),
            source.template,
            source.beta,
            source.dtype,
            source.decoding,
            tokenizers,
        ).write(folder)

    def _generation(self) -> GenerationConfig:
        """Return how the run's evaluation decoded, as far as `generate` knows it; nothing is taken from the base."""
        decoding, tokenizer = self.source.decoding, self.tokenizer
        eos, ends = self.template.eos_id, sorted(self.template.end_ids)
        settings: dict[str, object] = {
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": eos if len(ends) == 1 else ends,
            "pad_token_id": eos if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
        }
        if decoding.temperature > 0:
            sampled = {"do_sample": True, "temperature": decoding.temperature, "top_p": decoding.top_p}
            settings |= {**sampled, "top_k": 0}
        elif decoding.beams > 1:
            settings |= {"num_beams": decoding.beams, "do_sample": False}
        else:
            settings["do_sample"] = False
        if decoding.max_new_tokens is not None:
            settings["max_new_tokens"] = decoding.max_new_tokens
        else:
            settings["max_length"] = decoding.max_length
        return GenerationConfig(**settings)


def _absolute(name: str) -> str:
    """Return a folder's absolute path, by which an adapter finds it from anywhere; a hub name as it is."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name
