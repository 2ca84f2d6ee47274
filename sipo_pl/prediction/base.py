"""What the generation stages share: the policies, decoding with fusion, progress, marks."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule
from torch.nn import ModuleList

from sipo_pl.data.datamodules.unit_data import Unit
from sipo_pl.engine.decoding.fused_rows import log_probabilities
from sipo_pl.engine.decoding.generation import generate
from sipo_pl.engine.decoding.options import Decoding, Generated, Request
from sipo_pl.engine.lora.policies import Policy, PolicySet, load_policies, policy_input, read_policies
from sipo_pl.engine.memory_budget import MemoryBudget
from sipo_pl.messages.errors import UsageError
from sipo_pl.messages.progress import Progress
from sipo_pl.recipe.divergence import recipe_divergence
from sipo_pl.recipe.recipe import AlignmentStage, PolicyStage, Recipe
from sipo_pl.text.marks import MarkRules, text_marks
from sipo_pl.text.prompt import Prompt
from sipo_pl.text.templates import answer_text
from sipo_pl.text.tokenizers import end_tokens, load_template


class PredictionModule(LightningModule):
    """A prediction stage over units of rows.

    Args:
        recipe: what the stages share
        policies: the stage whose policies are used
    """

    prompts: Path | None = None
    max_rows: int | None = None
    sources: Sequence[str] = ()
    row: type = dict  # schema of the rows that the stage writes, see `data.rows`

    def __init__(self, recipe: Recipe, policies: AlignmentStage) -> None:
        super().__init__()
        self.recipe, self.policies = recipe, policies
        self.divergence = recipe_divergence(recipe)
        self.policy_set: PolicySet | None = None
        self.memory_budget = MemoryBudget(recipe.fixed_shapes)
        self.progress: Progress | None = None

    @property
    def base_model(self) -> str:
        """Return the name of the base model."""
        return self.recipe.policy_base

    @property
    def base_models(self) -> dict[str, str]:
        """Return what each base model is called in the manifest -> the model."""
        return self.recipe.base_models(self.adapter_stage)

    @property
    def inputs(self) -> dict[str, tuple[Path, str]]:
        """Return the adapters that the stage reads: name -> (path, command that makes it)."""
        objectives = self.recipe.objectives if self.needs_policies else []
        return {f"policy {one.name}": policy_input(self.recipe, self.adapter_stage, one) for one in objectives}

    @property
    def adapter_stage(self) -> PolicyStage:
        """Return the stage whose adapters are read."""
        return self.policies

    @property
    def recipe_keys(self) -> dict[str, Any]:
        """Return what of the recipe may change the stage's results."""
        return self.recipe.keys()

    @property
    def needs_policies(self) -> bool:
        """Return whether the stage runs the policies at all."""
        return True

    @property
    def needs_base(self) -> bool:
        """Return whether the stage runs the recipe's base model alone."""
        return False

    def read_policies(self) -> list[Policy]:
        """Return the policies that the stage runs; here the objectives', in their order."""
        return read_policies(self.recipe, self.adapter_stage)

    def configure_model(self) -> None:
        """Load the base models and stack the policies over them."""
        if self.policy_set is None and self.needs_policies:
            self.policy_set = load_policies(self.recipe, self.read_policies(), self.needs_base)
            self.policy_set.memory_budget = self.memory_budget
            if self.recipe.device_map is None:  # else the trainer would bring all layers to one device
                self.bases = ModuleList(stack.model for stack in self.policy_set.stacks)

    def setup(self, stage: str) -> None:
        if self.recipe.device_map is not None and self.trainer.world_size > 1:
            raise UsageError(
                f"recipe.device_map: one process has the layers on all its devices, found {self.trainer.world_size} "
                "processes (trainer.devices: 1)"
            )
        self.template = load_template(self.base_model, self.recipe.dated_template)

    def transfer_batch_to_device(self, batch: Unit, device: Any, dataloader_idx: int) -> Unit:
        """Return the unit as it is: it holds text."""
        return batch

    def prepare(self, unit: Unit) -> Any:
        """Return what the CPU makes of a unit ahead of its step; nothing here."""

    def advance(self, rows: int, tokens: int) -> None:
        """Count rows and tokens as done, where progress is shown."""
        if self.progress is not None:
            self.progress.advance(rows, tokens)

    @abstractmethod
    def expected_ids(self, unit: Unit) -> list[str]:
        """Return the ids of the rows that the unit must hold when it is written, in order."""

    @abstractmethod
    def predict_step(self, batch: Unit, batch_idx: int) -> list[dict[str, Any]]:
        """Return the unit's rows."""


class GenerationModule(PredictionModule):
    """A prediction stage that decodes text.

    Args:
        recipe: what the stages share
        policies: the stage whose policies are fused
        decoding: how text is decoded
        marks: when a text is marked as collapsed
    """

    def __init__(self, recipe: Recipe, policies: AlignmentStage, decoding: Decoding, marks: MarkRules) -> None:
        super().__init__(recipe, policies)
        self.decoding, self.mark_rules = decoding, marks
        if self.divergence.needs_reference and len({recipe.base_of(one, policies) for one in recipe.objectives}) > 1:
            name = type(self.divergence).__name__
            raise UsageError(f"divergence: {name} fuses policies over one base model; objectives name several")

    @property
    def recipe_keys(self) -> dict[str, Any]:
        ends = end_tokens(self.base_model)
        return {**super().recipe_keys, **({"end_tokens": list(ends)} if len(ends) > 1 else {})}

    def decode(self, requests: Sequence[Request]) -> list[Generated]:
        """Decode the requests of a unit, showing progress."""
        assert self.policy_set is not None
        return generate(
            self.policy_set,
            requests,
            self.decoding,
            self.divergence,
            self.template.end_ids,
            self.recipe.seed,
            self.advance,
            self.recipe.part(log_probabilities),
        )

    def answer(self, prompt: Prompt, generated: Generated, start: str = "") -> str:
        """Return the text of an answer to `prompt`, which begins with `start`."""
        return self.recipe.part(answer_text)(self.template, prompt, start + self.template.decode(generated.token_ids))

    def text_row(self, generated: Generated, text: str) -> dict[str, Any]:
        """Return what every generated row tells of its text: tokens, finish reason, marks."""
        return {
            "tokens": len(generated.token_ids) + (generated.finish_reason == "eos"),
            "finish_reason": generated.finish_reason,
            "marks": text_marks(text, generated.finish_reason, self.mark_rules),
        }
