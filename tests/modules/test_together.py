"""Alignments in one pass beside the same fits one by one, and what cannot be in one pass."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from tiny import make_tiny_adapter, make_tiny_model, opposed_pairs

from sipo_pl.data.datamodules.preference_data import PreferenceData
from sipo_pl.engine.lora.adapters import Factors
from sipo_pl.messages.errors import UsageError, UserError
from sipo_pl.recipe.compat import Compat
from sipo_pl.recipe.recipe import Data, Objective, Recipe, Template
from sipo_pl.storage.artifacts import write_jsonl
from sipo_pl.training.dpo import DPOAlignment
from sipo_pl.training.lora_fit import Forwards, LoRASettings
from sipo_pl.training.preference import PreferenceModule
from sipo_pl.training.realign import Realignment
from sipo_pl.training.together import Together

LORA = LoRASettings(r=4, alpha=8.0, targets=["q_proj", "v_proj"])
PAIRS = {"a": 7, "b": 4}  # which end in steps of their own, b earlier
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("base") / "model", spread=0.1)


@pytest.fixture
def recipe(base: Path, tmp_path: Path) -> Recipe:
    adapters = [make_tiny_adapter(tmp_path / f"adapter-{k}", base, seed=k, r=2 + 2 * k) for k in range(2)]
    objectives = [Objective(name, adapter=str(one)) for name, one in zip(PAIRS, adapters, strict=True)]
    folder, template = str(tmp_path / "run"), Template(text="{raw_prompt}>")
    made = Recipe("t", str(base), objectives, Data(train=[]), template, beta=0.5, run_dir=folder)
    rows = opposed_pairs(7, to_a_prompt=2)
    write_jsonl(made.layout.pairs("train"), rows)
    write_jsonl(made.layout.pairs("validation"), rows[:3])
    write_jsonl(
        made.layout.stage("filter") / "kept.jsonl", [{**row, "kept": f"better {row['pair_id']}"} for row in rows]
    )
    return made


class Losses(Callback):
    """Notes rows and loss of every micro-batch, every clipped gradient's norm, and every validation."""

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self.numbers: list[float] = []
        self.forwards = 0  # of training, by the fit's own model

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        def count(*arguments: Any) -> None:
            self.forwards += torch.is_grad_enabled()

        assert isinstance(pl_module, PreferenceModule)
        pl_module.stack.model.get_input_embeddings().register_forward_hook(count)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.rows.append((trainer.global_step, batch.pair_ids))
        self.numbers.append(float(outputs["loss"]))

    def on_before_zero_grad(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        norms = [one.grad.norm() for group in optimizer.param_groups for one in group["params"] if one.grad is not None]
        self.numbers.append(float(torch.stack(norms).norm()) if norms else 0.0)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.rows.append("validated")
        self.numbers.append(float(trainer.callback_metrics["val/loss"]))


class Fitted:
    """A fit of an objective and what it left.

    Args:
        recipe: the recipe
        kind: of the module
        name: the objective
        forwards: of the module
    """

    def __init__(self, recipe: Recipe, kind: type[PreferenceModule], name: str, forwards: Forwards) -> None:
        def sgd(parameters: Any) -> torch.optim.Optimizer:
            return torch.optim.SGD(parameters, lr=0.5, momentum=0.9)

        source = "filter" if kind is Realignment else "prepare"
        self.module = kind(recipe, name, sgd, lora=LORA, warmup=0.3, forwards=forwards)  # type: ignore[call-arg]
        self.data = PreferenceData(recipe, name, source, micro_batch_size=2, eval_batch_size=2, max_pairs=PAIRS[name])  # type: ignore[arg-type]
        self.losses = Losses()

    def fit(self, folder: Path, together: Together | None = None) -> None:
        trainer = Trainer(
            accelerator="cpu",
            devices=1,
            accumulate_grad_batches=2,
            gradient_clip_val=0.05,
            max_epochs=3,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
            callbacks=[self.losses],
        )
        if together:
            together.welcome(self.module, trainer)
        trainer.fit(self.module, datamodule=self.data)

    @property
    def adapter(self) -> Factors:
        return self.module.adapter()


def fit_together(fits: dict[str, Fitted], folder: Path) -> None:
    together = Together(list(fits))
    for one in fits.values():
        together.check(one.module)
    together.run({name: partial(one.fit, folder, together) for name, one in fits.items()})


@pytest.mark.parametrize(
    ("kind", "forwards"),
    [
        (DPOAlignment, Forwards()),
        (Realignment, Forwards()),
        (Realignment, Forwards(batch_tokens=60, checkpointing=True)),
    ],
)
def test_fits_in_one_pass_are_those_one_by_one(
    recipe: Recipe, tmp_path: Path, kind: type[PreferenceModule], forwards: Forwards
) -> None:
    alone = {name: Fitted(recipe, kind, name, Forwards()) for name in PAIRS}
    for one in alone.values():
        one.fit(tmp_path)
    joined = {name: Fitted(recipe, kind, name, forwards) for name in PAIRS}
    fit_together(joined, tmp_path)
    for name, expected in alone.items():
        found = joined[name]
        assert found.losses.rows == expected.losses.rows
        torch.testing.assert_close(found.losses.numbers, expected.losses.numbers, **CLOSE)
        for layer, factors in expected.adapter.items():
            torch.testing.assert_close(found.adapter[layer], factors, **CLOSE)
        assert found.module.stack.moved
        assert set(found.module.state_dict()) == set(expected.module.state_dict())
    counts = [one.losses.forwards for one in (*alone.values(), *joined.values())]
    if forwards.batch_tokens is None:
        assert counts[2:] == [counts[0], 0]  # those of `b` have a part in those of `a`
    steps = {name: one.losses.rows[-2][0] for name, one in joined.items()}
    assert steps == {"a": 6, "b": 3}
    a, b = (one.module.stack.model for one in joined.values())
    assert a.get_input_embeddings().weight is b.get_input_embeddings().weight


def refused(recipe: Recipe, kind: type[PreferenceModule], lora: LoRASettings = LORA) -> Iterator[None]:
    together = Together(list(PAIRS))
    for name in PAIRS:
        together.check(kind(recipe, name, torch.optim.SGD, lora=lora))  # type: ignore[call-arg, arg-type]
        yield


def test_dropout_and_other_bases_are_refused_before_anything_runs(recipe: Recipe) -> None:
    with pytest.raises(UsageError, match=r"^model\.lora\.dropout: .*align: one_by_one"):
        list(refused(recipe, DPOAlignment, LoRASettings(dropout=0.1)))
    recipe.compat = Compat(merged_reference=True)
    assert len(list(refused(recipe, DPOAlignment))) == 2
    with pytest.raises(UsageError, match=r"^compat\.merged_reference: each objective has a base of its own"):
        list(refused(recipe, Realignment))
    recipe.objectives[1].base_model = "another"
    with pytest.raises(UsageError, match=r"^base models of 'a' and 'b' differ: .*model and another"):
        list(refused(recipe, DPOAlignment))


def test_adapters_of_other_targets_are_refused_by_name(recipe: Recipe, tmp_path: Path, base: Path) -> None:
    folder = make_tiny_adapter(tmp_path / "other", base, seed=3, target_modules=["down_proj"])
    recipe.objectives[1].adapter = str(folder)
    fits = {name: Fitted(recipe, Realignment, name, Forwards()) for name in PAIRS}
    with pytest.raises(
        UserError, match=r"^the adapters of 'a' and 'b' are on other layers, such as '\S+': no pass can"
    ):
        fit_together(fits, tmp_path)


def test_a_pair_over_the_budget_and_an_objective_without_pairs_are_named(recipe: Recipe, tmp_path: Path) -> None:
    fits = {name: Fitted(recipe, DPOAlignment, name, Forwards(batch_tokens=30)) for name in PAIRS}
    with pytest.raises(UserError, match=r"batch_tokens: p\d takes \d+ tokens, more than the 30 of a forward"):
        fit_together(fits, tmp_path)
    fits = {name: Fitted(recipe, DPOAlignment, name, Forwards()) for name in PAIRS}
    fits["b"].data.max_length = 12
    with pytest.raises(
        UserError, match=r"train\.jsonl: no pair left for objective 'b' \(left out: 7 longer than max_length"
    ):
        fit_together(fits, tmp_path)
