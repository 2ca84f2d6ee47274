import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger
from tiny import make_tiny_adapter, make_tiny_model, opposed_pairs
from torch import Tensor

from sipo_pl.callbacks.still_guard import StillGuard
from sipo_pl.data.datamodules.preference_data import PreferenceData
from sipo_pl.data.loader import PairBatch, TrainingPair
from sipo_pl.engine.lora.adapters import read_adapter, write_adapter
from sipo_pl.messages.errors import UserError
from sipo_pl.method.losses import DPOLW
from sipo_pl.recipe.compat import Compat
from sipo_pl.recipe.recipe import Data, Objective, Recipe, Template
from sipo_pl.storage.json_lines import read_jsonl, write_jsonl
from sipo_pl.text.templates import Encoded
from sipo_pl.training.dpo import DPOAlignment
from sipo_pl.training.lora_fit import Forwards, LoRASettings
from sipo_pl.training.preference import PreferenceModule
from sipo_pl.training.realign import Realignment

LORA = LoRASettings(r=4, alpha=8.0, targets=["q_proj", "v_proj"])
BETA, ALPHA = 0.5, 0.1


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("base") / "model", spread=0.1)


@pytest.fixture(scope="module")
def first_adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_adapter(tmp_path_factory.mktemp("first") / "adapter", base, seed=1)


@pytest.fixture
def recipe(base: Path, first_adapter: Path, tmp_path: Path) -> Recipe:
    objectives = [Objective("a", adapter=str(first_adapter)), Objective("b")]
    template = Template(text="{raw_prompt}>")
    made = Recipe(
        "t", str(base), objectives, Data(train=[], validation=[]), template, beta=BETA, run_dir=str(tmp_path / "run")
    )
    rows = opposed_pairs(7)
    write_jsonl(made.layout.pairs("train"), rows)
    write_jsonl(made.layout.pairs("validation"), rows[:3])
    kept = [{**row, "kept": f"better {row['pair_id']}"} for row in rows[:4]]
    write_jsonl(made.layout.stage("filter") / "kept.jsonl", kept)
    return made


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.5)


def make(
    recipe: Recipe, kind: type[DPOAlignment] | type[Realignment], pairs: int | None = None
) -> tuple[PreferenceModule, PreferenceData]:
    module = kind(recipe, "a", sgd, lora=LORA, warmup=0.0, reference_batch_rows=4)
    source = "filter" if kind is Realignment else "prepare"
    return module, PreferenceData(recipe, "a", source, micro_batch_size=2, eval_batch_size=2, max_pairs=pairs)


def fit(module: PreferenceModule, data: PreferenceData, folder: Path, *callbacks: Callback, **settings: Any) -> Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        callbacks=list(callbacks),
        **{"max_epochs": 2, "accumulate_grad_batches": 2, **quiet, **settings},
    )
    trainer.fit(module, datamodule=data)
    return trainer


def logp(module: PreferenceModule, row: Encoded) -> Tensor:
    """Sum the whole log-softmax over the response, of the row alone."""
    ids = torch.tensor([row.input_ids])
    logps = module.stack.model(input_ids=ids).logits[0, :-1].double().log_softmax(dim=-1)
    return logps.gather(1, ids[0, 1:, None])[row.prompt_length - 1 :].sum()


def plain_loss(module: PreferenceModule, pair: TrainingPair, nll: float) -> Tensor:
    with torch.no_grad(), module.stack.reference():
        reference = logp(module, pair.chosen) - logp(module, pair.rejected)
    chosen = logp(module, pair.chosen)
    margin = BETA * (chosen - logp(module, pair.rejected) - reference)
    return -torch.nn.functional.logsigmoid(margin) - nll * chosen / pair.chosen.response_length


ABSOLUTE_TOLERANCE = 1e-6


class Gradients(Callback):
    """Compares every optimizer step's gradient with plain autograd's."""

    def __init__(self, nll: float) -> None:
        self.nll = nll
        self.window: list[str] = []
        self.windows: list[list[str]] = []
        self.largest: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: PairBatch, batch_idx: int) -> None:
        self.window += batch.pair_ids

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        pairs = {pair.pair_id: pair for pair in trainer.datamodule.loaders["train"].pairs}  # type: ignore[attr-defined]
        loss = torch.stack([plain_loss(pl_module, pairs[name], self.nll) for name in self.window]).mean()
        parameters = [parameter for parameter in pl_module.parameters() if parameter.requires_grad]
        for parameter, expected in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-3, atol=ABSOLUTE_TOLERANCE)
        self.largest.append(max(float(parameter.grad.abs().max()) for parameter in parameters))
        self.windows.append(self.window)
        self.window = []


@pytest.mark.parametrize(
    ("kind", "nll", "pairs", "sizes"),
    [
        (DPOAlignment, 0.0, 7, [4, 3]),  # the last window's second micro-batch is ragged
        (DPOAlignment, 0.0, 5, [4, 1]),  # or missing
        (Realignment, ALPHA, None, [4, 4]),
    ],
)
def test_every_steps_gradient_is_that_of_the_mean_over_its_pairs(
    recipe: Recipe, tmp_path: Path, kind: Any, nll: float, pairs: int | None, sizes: list[int]
) -> None:
    module, data = make(recipe, kind, pairs)
    check = Gradients(nll)
    trainer = fit(module, data, tmp_path, check)
    assert [len(window) for window in check.windows] == sizes * 2
    assert trainer.global_step == module.total_steps == 4
    names = sorted(pair.pair_id for pair in data.loaders["train"].pairs)
    for epoch in (check.windows[:2], check.windows[2:]):
        assert sorted(name for window in epoch for name in window) == names  # every epoch trains on every pair
    assert min(check.largest) > 100 * ABSOLUTE_TOLERANCE  # so that the comparison says something
    assert {"val/loss", "val/rewards/margins", "val/logps/chosen"} <= set(trainer.callback_metrics)


def test_what_is_logged_of_a_step_is_the_mean_over_its_pairs(recipe: Recipe, tmp_path: Path) -> None:
    curves = []
    for size, accumulate in ((4, 1), (2, 2), (1, 4)):  # steps of four pairs and of three
        module = make(recipe, DPOAlignment)[0]
        data = PreferenceData(recipe, "a", "prepare", micro_batch_size=size, eval_batch_size=2)
        logger = CSVLogger(tmp_path, f"{size}", "")
        fit(module, data, tmp_path, logger=logger, accumulate_grad_batches=accumulate, log_every_n_steps=1)
        logger.save()
        with (tmp_path / f"{size}" / "metrics.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row["loss"]]
        curves.append([float(row[name]) for row in rows for name in ("loss", "rewards/margins", "logps/chosen")])
    assert len(curves[0]) == 4 * 3
    assert max(curves[0][::3]) - min(curves[0][::3]) > 1e-3  # so that the comparison says something
    assert curves[1] == pytest.approx(curves[0], rel=1e-5, abs=1e-5)
    assert curves[2] == pytest.approx(curves[0], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(("budget", "checkpointing"), [(60, False), (10_000, True)])
def test_neither_the_token_budget_nor_layers_computed_again_change_a_fit(
    recipe: Recipe, tmp_path: Path, budget: int, checkpointing: bool
) -> None:
    factors = []
    for forwards in (Forwards(), Forwards(budget, checkpointing)):
        module, data = make(recipe, Realignment)
        module.forwards = forwards
        fit(module, data, tmp_path, Gradients(ALPHA))
        factors.append(module.adapter())
    for name, (a, b) in factors[0].items():
        torch.testing.assert_close(factors[1][name], (a, b), rtol=1e-4, atol=1e-5)


def test_a_pair_longer_than_the_token_budget_is_named(recipe: Recipe, tmp_path: Path) -> None:
    module, data = make(recipe, DPOAlignment)
    module.forwards = Forwards(batch_tokens=30)
    with pytest.raises(UserError, match=r"batch_tokens: p\d takes \d+ tokens, more than the 30 of a forward"):
        fit(module, data, tmp_path)


def test_the_first_loss_is_log_two_and_the_validation_is_the_mean_over_pairs(recipe: Recipe, tmp_path: Path) -> None:
    module, data = make(recipe, DPOAlignment)
    trainer = fit(module, data, tmp_path, max_epochs=1)
    with torch.no_grad():
        losses = [float(plain_loss(module, pair, 0.0)) for pair in data.loaders["validation"].pairs]
    assert len(losses) == 3  # in batches of two and one
    assert float(trainer.callback_metrics["val/loss"]) == pytest.approx(sum(losses) / 3, rel=1e-4)
    fresh, data = make(recipe, DPOAlignment)
    metrics = fit(fresh, data, tmp_path, max_epochs=1, limit_train_batches=1).callback_metrics
    assert float(metrics["loss"]) == pytest.approx(0.693147, rel=1e-4)


@pytest.mark.parametrize("kind", [DPOAlignment, Realignment])
def test_a_fit_that_does_not_start_at_its_reference_is_stopped(recipe: Recipe, tmp_path: Path, kind: Any) -> None:
    module, data = make(recipe, kind)
    module.configure_model()
    trained = [layer.lora_B for layer in module.stack.layers.values() if layer.lora_B is not None]
    assert trained
    for b in trained:
        b.data.fill_(0.05)
    with pytest.raises(UserError, match=r"the untrained policy differs from the reference by .* \(tolerance 0\.01\)"):
        fit(module, data, tmp_path)


def test_a_response_that_the_model_never_says_stops_the_fit(recipe: Recipe, tmp_path: Path) -> None:
    module, data = make(recipe, DPOAlignment)
    module.configure_model()
    head = module.stack.model.get_output_embeddings()
    head.bias = torch.nn.Parameter(torch.zeros(head.out_features), requires_grad=False)
    head.bias.data[2] = -torch.inf  # EOS
    with pytest.raises(UserError, match=r"\d of \d responses have a log-probability that is no number"):
        fit(module, data, tmp_path)


@pytest.mark.parametrize(("compat", "step"), [(Compat(), 1), (Compat(step_count_warmup=True), 2)])
def test_a_fit_without_a_learning_rate_is_stopped_at_its_first_step(
    recipe: Recipe, tmp_path: Path, compat: Compat, step: int
) -> None:
    recipe.compat = compat
    module, data = make(recipe, DPOAlignment)
    module.optimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.0)
    with pytest.raises(UserError, match=rf"^step {step} left the adapter as it was: the learning rate is 0"):
        fit(module, data, tmp_path, StillGuard())


def test_a_fit_without_a_gradient_is_stopped_after_its_first_epoch(recipe: Recipe, tmp_path: Path) -> None:
    tied = [{**row, "preferred": {"a": 0, "b": -1}} for row in read_jsonl(recipe.layout.pairs("train"))]
    write_jsonl(recipe.layout.pairs("train"), tied)
    module, data = make(recipe, DPOAlignment)
    module.loss = DPOLW("a=0,b=1")
    with pytest.raises(UserError, match=r"^2 steps left the adapter as it was: the gradient is 0 at a learning rate"):
        fit(module, data, tmp_path, StillGuard())


@pytest.mark.parametrize("kind", [DPOAlignment, Realignment])
def test_a_fit_that_moves_goes_on(recipe: Recipe, tmp_path: Path, kind: Any) -> None:
    recipe.compat = Compat(step_count_warmup=True)
    module, data = make(recipe, kind)
    module.warmup = 2.0
    assert fit(module, data, tmp_path, StillGuard()).global_step == module.total_steps
    assert module.stack.moved


@pytest.mark.parametrize("kind", [DPOAlignment, Realignment])
def test_the_adapter_of_a_fit_is_its_policy_on_the_base(recipe: Recipe, tmp_path: Path, kind: Any) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    module, data = make(recipe, kind)
    fit(module, data, tmp_path)
    write_adapter(tmp_path / "adapter", module.adapter(), base_model=recipe.base_model)
    ids = torch.arange(4, 40)[None]
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(recipe.base_model), tmp_path / "adapter")
    with torch.no_grad(), module.stack.reference():
        reference = module.stack.model(input_ids=ids).logits
    with torch.no_grad():
        trained = module.stack.model(input_ids=ids).logits
        torch.testing.assert_close(theirs(input_ids=ids).logits, trained, rtol=1e-4, atol=1e-5)
    assert (trained - reference).abs().max() > 1e-3
    expected = 8 if kind is Realignment else 4  # the first adapter's ranks and the new ones
    assert read_adapter(tmp_path / "adapter").rank == expected


def test_a_checkpoint_holds_the_ranks_in_training_alone(recipe: Recipe) -> None:
    module, _ = make(recipe, Realignment)
    module.configure_model()
    names = list(module.state_dict())
    assert names
    assert all(name.rpartition(".")[2] in ("lora_A", "lora_B") for name in names)


def test_a_first_adapter_of_another_base_is_refused_by_name(recipe: Recipe, tmp_path: Path) -> None:
    other = read_adapter(recipe.layout.adapter("align", recipe.objectives[0])).factors
    wrong = {name: (torch.zeros(4, 48), b) for name, (_, b) in other.items()}
    write_adapter(tmp_path / "foreign", wrong, base_model="another")
    recipe.objectives[0].adapter = str(tmp_path / "foreign")
    module, _ = make(recipe, Realignment)
    with pytest.raises(UserError, match=r"foreign: .*an adapter of another base\?"):
        module.configure_model()


def test_data_without_a_pair_of_the_objective_is_an_error(recipe: Recipe, tmp_path: Path) -> None:
    path = recipe.layout.pairs("validation")
    write_jsonl(path, [])
    module, data = make(recipe, DPOAlignment)
    with pytest.raises(UserError, match=r"validation\.jsonl: no pair left for objective 'a' \(left out: none\)"):
        fit(module, data, tmp_path)


def test_a_merged_reference_is_written_beside_the_adapter_that_belongs_to_it(recipe: Recipe, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    recipe.compat = Compat(merged_reference=True)
    recipe.dtype = "bfloat16"
    module, data = make(recipe, Realignment)
    fit(module, data, tmp_path)  # checks that it starts at its reference
    assert module.write(tmp_path / "realign") == [tmp_path / "realign/adapter", tmp_path / "realign/model"]
    written = read_adapter(tmp_path / "realign/adapter")
    assert (written.rank, written.base) == (4, str(tmp_path / "realign/model"))  # the new ranks alone
    ids = torch.arange(4, 40)[None]
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "realign/model")
    assert merged.dtype == torch.bfloat16
    with torch.no_grad(), module.stack.reference():
        assert torch.equal(merged(input_ids=ids).logits, module.stack.model(input_ids=ids).logits)
    theirs = PeftModel.from_pretrained(merged.float(), tmp_path / "realign/adapter")
    with torch.no_grad():
        ours = module.stack.model.float()(input_ids=ids).logits
        torch.testing.assert_close(theirs(input_ids=ids).logits, ours, rtol=1e-4, atol=1e-5)
    folder = recipe.layout.stage("realign", module.objective.name)
    assert recipe.base_of(module.objective, "realign") == str(folder / "model")
    assert recipe.base_of(module.objective, "align") == recipe.base_model
