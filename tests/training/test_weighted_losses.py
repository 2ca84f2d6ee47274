"""MODPO, DPO-LW and the released code's accidents through a whole fit, against plain autograd."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from tiny import make_tiny_adapter, make_tiny_model
from torch import Tensor
from torch.nn.functional import logsigmoid

from sipo_pl.callbacks.cost import FitCost
from sipo_pl.data.datamodules.preference_data import PreferenceData
from sipo_pl.data.loader import PairBatch, TrainingPair
from sipo_pl.engine.lora.adapters import read_adapter, write_adapter
from sipo_pl.engine.lora.stack import LoRAStack
from sipo_pl.messages.errors import UsageError, UserError
from sipo_pl.method.losses import DPO, DPOLW, MODPO, DPOWithNLL, PreferenceLoss, raco_step
from sipo_pl.recipe.compat import Compat
from sipo_pl.recipe.recipe import Data, Objective, Recipe, Template
from sipo_pl.recipe.saving import Saving
from sipo_pl.rewards.base import Reward
from sipo_pl.run.stage_folder import StageRun, trainer_provenance
from sipo_pl.storage.json_lines import write_jsonl
from sipo_pl.text.prompt import TextRow
from sipo_pl.text.templates import Encoded
from sipo_pl.training.dpo import DPOAlignment
from sipo_pl.training.preference import LoRASettings
from sipo_pl.training.raco import RACOAlignment

NAMES = ("a", "b", "c")
WEIGHTS = (0.5, 0.3, 0.2)
POINT = "a=0.5,c=0.2,b=0.3"
BETA = 0.5
TOLERANCE = 1e-6


class Bytes(Reward):
    """A tenth of a response's length, which tells prompt and response apart."""

    def score(self, rows: list[TextRow]) -> list[float]:  # type: ignore[override]
        return [len(row.response) / 10 - len(row.prompt) for row in rows]


BYTES = {"class_path": f"{__name__}.Bytes"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("base") / "model", spread=0.1)


@pytest.fixture(scope="module")
def adapters(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    # c adapts layers that the ranks in training leave alone
    targets = {"b": ["q_proj", "v_proj"], "c": ["q_proj", "o_proj", "up_proj"]}
    return {
        name: make_tiny_adapter(folder / name, base, seed=index, target_modules=targets[name])
        for index, name in enumerate("bc")
    }


@pytest.fixture
def recipe(base: Path, adapters: dict[str, Path], tmp_path: Path) -> Recipe:
    objectives = [Objective("a"), *(Objective(name, adapter=str(folder)) for name, folder in adapters.items())]
    run_dir, template = str(tmp_path / "run"), Template(text="{raw_prompt}>")
    made = Recipe("t", str(base), objectives, Data([], []), template, beta=BETA, run_dir=run_dir)
    rows = [
        {
            "pair_id": f"p{index}",
            "prompt_id": f"x{index}",
            "prompt": f"prompt {index}",
            "response_0": "yes " * (index + 1),
            "response_1": f"yonder {index}",  # both begin with a y
            "preferred": {"c": (-1, 0, 1)[index % 3], "b": 1 - index % 2, "a": index % 2},
        }
        for index in range(7)
    ]
    write_jsonl(made.layout.pairs("train"), rows)
    write_jsonl(made.layout.pairs("validation"), rows[:3])
    return made


def make(recipe: Recipe, loss: PreferenceLoss, **settings: Any) -> DPOAlignment:
    lora = LoRASettings(r=4, alpha=8.0, targets=["q_proj", "v_proj"])
    return DPOAlignment(recipe, "a", sgd, loss=loss, lora=lora, warmup=0.0, reference_batch_rows=4, **settings)


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.5)


def make_data(recipe: Recipe) -> PreferenceData:
    return PreferenceData(recipe, "a", micro_batch_size=2, eval_batch_size=2)


def make_trainer(folder: Path, *callbacks: Callback, **settings: Any) -> Trainer:
    usual = {"max_epochs": 1, "accumulate_grad_batches": 2, "num_sanity_val_steps": 0, "enable_checkpointing": False}
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    chosen: dict[str, Any] = {**usual, **quiet, **settings}
    return Trainer(accelerator="cpu", devices=1, default_root_dir=folder, callbacks=list(callbacks), **chosen)


def fit(module: DPOAlignment, folder: Path, *callbacks: Callback) -> Trainer:
    trainer = make_trainer(folder, *callbacks)
    trainer.fit(module, datamodule=make_data(module.recipe))
    return trainer


def logp(stack: LoRAStack, row: Encoded) -> Tensor:
    """Sum the whole log-softmax over the response, of the row alone."""
    ids = torch.tensor([row.input_ids])
    logps = stack.model(input_ids=ids).logits[0, :-1].double().log_softmax(dim=-1)
    return logps.gather(1, ids[0, 1:, None])[row.prompt_length - 1 :].sum()


def difference(stack: LoRAStack, pair: TrainingPair) -> Tensor:
    return logp(stack, pair.chosen) - logp(stack, pair.rejected)


def log_ratio(stack: LoRAStack, pair: TrainingPair) -> Tensor:
    with torch.no_grad(), stack.reference():
        reference = difference(stack, pair)
    return difference(stack, pair) - reference


def plain_dpo(stack: LoRAStack, pair: TrainingPair) -> Tensor:
    return -logsigmoid(BETA * log_ratio(stack, pair))


def plain_dpo_lw(stack: LoRAStack, pair: TrainingPair) -> Tensor:
    margin = BETA * log_ratio(stack, pair)
    terms = [w * -logsigmoid(pair.signs[name] * margin) for name, w in zip(NAMES, WEIGHTS, strict=True)]
    return torch.stack([term for name, term in zip(NAMES, terms, strict=True) if pair.signs[name]]).sum()


class PlainMODPO:
    """MODPO with margins of the adapters of b and c, or of `Bytes` for b."""

    def __init__(self, adapters: dict[str, Path], rewards: tuple[str, ...] = ()) -> None:
        self.adapters = {name: read_adapter(folder).factors for name, folder in adapters.items()}
        self.rewards = rewards

    def __call__(self, stack: LoRAStack, pair: TrainingPair) -> Tensor:
        whole = BETA * log_ratio(stack, pair)
        for name, weight in zip(NAMES[1:], WEIGHTS[1:], strict=True):
            whole = whole - weight * self.margin(stack, pair, name)
        return -logsigmoid(whole / WEIGHTS[0])

    def margin(self, stack: LoRAStack, pair: TrainingPair, name: str) -> Tensor | float:
        if name in self.rewards:
            chosen, rejected = Bytes().score(list(pair.texts))
            return chosen - rejected
        with torch.no_grad(), stack.reference():
            base = difference(stack, pair)
            with stack.frozen(self.adapters[name]):
                return BETA * (difference(stack, pair) - base)


class Gradients(Callback):
    """Compares every optimizer step's gradient with plain autograd's."""

    def __init__(self, plain: Any) -> None:
        self.plain = plain
        self.window: list[str] = []
        self.sizes: list[int] = []
        self.largest: list[float] = []
        self.losses: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: PairBatch, batch_idx: int) -> None:
        self.window += batch.pair_ids

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        pairs = {pair.pair_id: pair for pair in trainer.datamodule.loaders["train"].pairs}  # type: ignore[attr-defined]
        loss = torch.stack([self.plain(pl_module.stack, pairs[name]) for name in self.window]).mean()
        parameters = [parameter for parameter in pl_module.parameters() if parameter.requires_grad]
        for parameter, expected in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-3, atol=TOLERANCE)
        self.largest.append(max(float(parameter.grad.abs().max()) for parameter in parameters))
        self.losses.append(loss.item())
        self.sizes.append(len(self.window))
        self.window = []


@pytest.mark.parametrize("name", ["dpo-lw", "modpo", "modpo with a reward"])
def test_every_steps_gradient_is_that_of_the_mean_over_its_pairs(
    recipe: Recipe, adapters: dict[str, Path], tmp_path: Path, name: str
) -> None:
    loss, plain, margins = {
        "dpo-lw": (DPOLW(POINT), plain_dpo_lw, None),
        "modpo": (MODPO(POINT), PlainMODPO(adapters), None),
        "modpo with a reward": (MODPO(POINT), PlainMODPO(adapters, ("b",)), {"a": BYTES, "b": BYTES}),
    }[name]
    check = Gradients(plain)
    module = make(recipe, loss, margins=margins)  # type: ignore[arg-type]
    trainer = fit(module, tmp_path, check)
    assert check.sizes == [4, 3]  # the last window's second micro-batch is ragged
    assert min(check.largest) > 100 * TOLERANCE  # so that the comparison says something
    stack = module.stack
    with torch.no_grad():
        values = [plain(stack, pair).item() for pair in trainer.datamodule.loaders["validation"].pairs]  # type: ignore[attr-defined, operator]
    assert float(trainer.callback_metrics["val/loss"]) == pytest.approx(sum(values) / 3, rel=1e-4)


class RACOSteps(Callback):
    """Compares every step's gradient with the step of the objectives' plain gradients."""

    def __init__(self) -> None:
        self.window: list[str] = []
        self.expected: Tensor | None = None
        self.turns: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: PairBatch, batch_idx: int) -> None:
        self.window += batch.pair_ids

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        pairs = {pair.pair_id: pair for pair in trainer.datamodule.loaders["train"].pairs}  # type: ignore[attr-defined]
        window = [pairs[name] for name in self.window]
        parameters = [parameter for parameter in pl_module.parameters() if parameter.requires_grad]
        rows = []
        for name in NAMES:
            terms = [
                abs(pair.signs[name]) * -logsigmoid(pair.signs[name] * BETA * log_ratio(pl_module.stack, pair))
                for pair in window
            ]
            found = torch.autograd.grad(torch.stack(terms).mean(), parameters)
            rows.append(torch.cat([one.flatten() for one in found]))
        gradients = torch.stack(rows)
        self.expected = raco_step(gradients, WEIGHTS, 0.4)
        together = torch.tensor(WEIGHTS) @ gradients
        self.turns.append(float(torch.cosine_similarity(self.expected, together, dim=0)))
        self.window = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: PairBatch, batch_idx: int
    ) -> None:
        if self.expected is not None:
            parameters = [parameter for parameter in pl_module.parameters() if parameter.requires_grad]
            step = torch.cat([parameter.grad.flatten() for parameter in parameters])  # type: ignore[union-attr]
            torch.testing.assert_close(step, self.expected, rtol=1e-3, atol=1e-5)
            self.expected = None


def test_racos_steps_are_those_of_the_objectives_plain_gradients(recipe: Recipe, tmp_path: Path) -> None:
    lora = LoRASettings(r=4, alpha=8.0, targets=["q_proj", "v_proj"])
    settings = {"lora": lora, "warmup": 0.0, "reference_batch_rows": 4}
    module = RACOAlignment(recipe, "a", sgd, weights=POINT, **settings)  # type: ignore[arg-type]
    steps, cost = RACOSteps(), FitCost()
    fit(module, tmp_path, steps, cost)
    assert len(steps.turns) == 2
    assert min(steps.turns) < 0.999  # they do turn
    tokens = sum(len(row.input_ids) for pair in module._data.loaders["train"].pairs for row in pair.rows)
    assert cost.counts == {"trained tokens": tokens, "backward passes": 4 * 3}


def test_the_policies_of_margins_are_computed_once_and_leave_the_policy_alone(
    recipe: Recipe, adapters: dict[str, Path], tmp_path: Path
) -> None:
    module = make(recipe, MODPO(POINT))
    fit(module, tmp_path)
    shards = sorted((recipe.layout.cache / "reference").rglob("*.jsonl"))
    assert len({path.parent for path in shards}) == 3  # the base model, b and c
    assert all(layer.frozen_A is None for layer in module.stack.layers.values())
    assert {name.rpartition(".")[2] for name in module.adapter()} == {"q_proj", "v_proj"}
    fit(make(recipe, MODPO("0.2,0.4,0.4")), tmp_path)
    assert sorted((recipe.layout.cache / "reference").rglob("*.jsonl")) == shards


def test_the_adapters_of_margins_are_inputs_and_rewards_are_not(recipe: Recipe, adapters: dict[str, Path]) -> None:
    folders = {name: path for name, (path, _) in make(recipe, MODPO(POINT)).inputs.items()}
    assert folders == {"margin of b": adapters["b"], "margin of c": adapters["c"]}
    assert list(make(recipe, MODPO(POINT), margins={"c": BYTES}).inputs) == ["margin of b"]
    assert make(recipe, DPOLW(POINT)).inputs == make(recipe, DPO()).inputs == {}


@pytest.mark.parametrize(
    ("loss", "margins", "problem"),
    [
        (MODPO("a=0,b=0.5,c=0.5"), None, "the trained objective 'a' has no weight"),
        (MODPO("a=0.5,bb=0.3,c=0.2"), None, r"model\.loss\.weights .*no objective 'bb'; did you mean 'b'"),
        (MODPO(POINT), {"bb": BYTES}, r"model\.margins: no objective 'bb'; did you mean 'b'"),
        (MODPO(POINT), {"b": {"class_path": f"{__name__}.Byte"}}, r"model\.margins\.b\.class_path"),
        (DPO(), {"b": BYTES}, r"model\.margins: DPO has no margins"),
    ],
)
def test_what_cannot_be_right_is_refused_before_a_model_is_loaded(
    recipe: Recipe, loss: PreferenceLoss, margins: Any, problem: str
) -> None:
    recipe.base_model = "/no/such/model"
    with pytest.raises(UsageError, match=problem):
        make(recipe, loss, margins=margins)


def test_an_unknown_divergence_is_refused_by_name(recipe: Recipe) -> None:
    recipe.divergence = {"class_path": "sipo_pl.method.divergences.ForwardKl"}
    with pytest.raises(UsageError, match=r"divergence\.class_path: .*did you mean 'ForwardKL'"):
        make(recipe, DPO())


def test_an_adapter_of_another_base_is_refused_as_a_margin(recipe: Recipe, adapters: dict[str, Path]) -> None:
    wrong = {name: (torch.zeros(4, 48), b) for name, (_, b) in read_adapter(adapters["b"]).factors.items()}
    foreign = recipe.layout.run_dir / "foreign"
    write_adapter(foreign, wrong, base_model="another")
    recipe.objectives[1].adapter = str(foreign)
    with pytest.raises(UserError, match=r"foreign: .*an adapter of another base\?"):
        make(recipe, MODPO(POINT)).configure_model()


def test_another_divergence_trains_another_way(recipe: Recipe, tmp_path: Path) -> None:
    recipe.divergence = {"class_path": "sipo_pl.method.divergences.JensenShannon"}

    def plain(stack: LoRAStack, pair: TrainingPair) -> Tensor:
        rewards = []
        for row in pair.rows:
            with torch.no_grad(), stack.reference():
                reference = logp(stack, row)
            rewards.append(-BETA * torch.log1p(torch.exp(reference - logp(stack, row))))
        return -logsigmoid(rewards[0] - rewards[1])

    check = Gradients(plain)
    fit(make(recipe, DPO()), tmp_path, check)
    assert min(check.largest) > 100 * TOLERANCE
    assert check.losses[0] == pytest.approx(0.693147, rel=1e-5)


# compat


def test_the_common_prefix_is_masked_where_it_is_asked(recipe: Recipe, tmp_path: Path) -> None:
    recipe.compat = Compat(common_prefix_mask=True)
    alpha = 0.3

    def plain(stack: LoRAStack, pair: TrainingPair) -> Tensor:
        ids = [row.input_ids for row in pair.rows]
        start = next(t for t, (left, right) in enumerate(zip(*ids, strict=False)) if left != right)
        chosen, rejected = (Encoded(row, start) for row in ids)
        nll = -logp(stack, chosen) / (len(ids[0]) - start)
        masked = TrainingPair("", chosen, rejected)
        return plain_dpo(stack, masked) + alpha * nll

    trainer = fit(make(recipe, DPOWithNLL(alpha)), tmp_path, Gradients(plain))
    pairs = trainer.datamodule.loaders["train"].pairs  # type: ignore[attr-defined]
    prompt = len("<prompt 0>")  # BOS, then a token a byte
    assert {row.prompt_length for pair in pairs for row in pair.rows} == {prompt + 1}  # the y


def test_the_nll_term_is_divided_by_the_padded_length_where_it_is_asked(recipe: Recipe, tmp_path: Path) -> None:
    recipe.compat = Compat(padded_nll=True)
    module = make(recipe, DPOWithNLL(0.3))
    trainer = fit(module, tmp_path)
    batch = next(iter(trainer.datamodule.loaders["validation"]))  # type: ignore[attr-defined]
    longest = batch.tokens.input_ids.shape[1]
    assert module(batch).chosen_lengths.tolist() == [longest, longest]
    recipe.compat = Compat()
    lengths = batch.tokens.response_mask.sum(dim=1)[:2]
    assert module(batch).chosen_lengths.tolist() == lengths.tolist()
    assert longest not in lengths


def test_validation_logs_dpo_alone_beside_the_loss(recipe: Recipe, tmp_path: Path) -> None:
    module = make(recipe, DPOWithNLL(0.3))
    trainer = fit(module, tmp_path)
    pairs = trainer.datamodule.loaders["validation"].pairs  # type: ignore[attr-defined]
    with torch.no_grad():
        dpo = sum(plain_dpo(module.stack, pair).item() for pair in pairs) / 3
        nll = sum(-logp(module.stack, pair.chosen).item() / pair.chosen.response_length for pair in pairs) / 3
    assert float(trainer.callback_metrics["val/dpo_loss"]) == pytest.approx(dpo, rel=1e-4)
    assert float(trainer.callback_metrics["val/loss"]) == pytest.approx(dpo + 0.3 * nll, rel=1e-4)


class Validations(Callback):
    """Keeps the metrics of every validation."""

    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.seen.append({name: float(value) for name, value in trainer.callback_metrics.items()})


@pytest.mark.parametrize("monitor", ["val/loss", "val/dpo_loss"])
def test_the_best_adapter_is_the_best_in_what_is_monitored(recipe: Recipe, tmp_path: Path, monitor: Any) -> None:
    saving, seen = Saving(validations=4, monitor=monitor), Validations()
    module, data = make(recipe, DPOWithNLL(5.0)), make_data(recipe)  # learns the NLL at DPO's cost
    with ExitStack() as held:
        run = StageRun(trainer_provenance("align-a", recipe, module, data, {}), recipe, module, data, False, held)
        callbacks = [*run.fit_callbacks(saving), seen]
        trainer = make_trainer(tmp_path, *callbacks, max_epochs=2, enable_checkpointing=True)
        run.fit(trainer, saving)
    assert len(seen.seen) == 4
    best = {name: min(range(4), key=lambda i: seen.seen[i][name]) for name in ("val/loss", "val/dpo_loss")}
    assert best["val/loss"] != best["val/dpo_loss"]
    assert run.manifest.notes["kept step"] == best[monitor] + 1
