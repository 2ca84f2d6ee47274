from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from tiny import CHAT_TEMPLATE, make_tiny_model
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from sipo_pl.data.datamodules.sft_data import SFTBatch, SFTData, SFTExample
from sipo_pl.engine.lora.adapters import read_adapter
from sipo_pl.messages.errors import UsageError
from sipo_pl.recipe.inputs import stage_inputs
from sipo_pl.recipe.recipe import Data, Objective, Recipe, Template
from sipo_pl.storage.json_lines import write_jsonl
from sipo_pl.training.lora_fit import LoRASettings
from sipo_pl.training.sft import SFT

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("base") / "model", spread=0.1, chat_template=CHAT_TEMPLATE)


@pytest.fixture
def recipe(base: Path, tmp_path: Path) -> Recipe:
    made = Recipe(
        "t",
        str(base),
        [Objective("a"), Objective("b")],
        Data(train=[], validation=[]),
        Template(text="{raw_prompt}>"),
        run_dir=str(tmp_path / "run"),
        stages={"sft": True},
    )
    rows = [
        {
            "prompt_id": f"x{index // 2}",
            "prompt": f"prompt {index // 2}",
            "response": "word " * (index + 1),
            "preferred_by": ["a"] if index % 2 else [],
        }
        for index in range(10)
    ]
    write_jsonl(made.layout.sft_rows, rows)
    return made


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.5)


def make(recipe: Recipe, dropout: float = 0.0) -> tuple[SFT, SFTData]:
    lora = LoRASettings(r=4, alpha=8.0, targets=["q_proj", "v_proj"], dropout=dropout)
    data = SFTData(recipe, micro_batch_size=2, eval_batch_size=2, validation_share=0.2)
    return SFT(recipe, sgd, lora=lora, warmup=0.0), data


def fit(module: SFT, data: SFTData, *callbacks: Callback, checkpoint: Path | None = None, **settings: Any) -> Trainer:
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
        **{"accumulate_grad_batches": 3, "max_epochs": 2, **settings},
    )
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    return trainer


def plain_loss(model: PreTrainedModel, examples: list[SFTExample]) -> Tensor:
    """The loss of transformers over all rows at once, prompts and padding labelled -100."""
    length = max(len(one.tokens.input_ids) for one in examples)
    ids, mask = torch.zeros(len(examples), length, dtype=torch.long), torch.zeros(len(examples), length)
    labels = torch.full((len(examples), length), -100)
    for row, one in enumerate(examples):
        tokens = torch.tensor(one.tokens.input_ids)
        ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
        labels[row, one.tokens.prompt_length : len(tokens)] = tokens[one.tokens.prompt_length :]
    loss: Tensor = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    return loss


class Steps(Callback):
    """Compares every optimizer step's gradient with that of the plain loss over all of its rows."""

    def __init__(self) -> None:
        self.window: list[str] = []
        self.sizes: list[int] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: SFTBatch, batch_idx: int) -> None:
        self.window += batch.row_ids

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        examples = {one.text_id: one for one in trainer.datamodule.loaders["train"].rows}  # type: ignore[attr-defined]
        loss = plain_loss(pl_module.stack.model, [examples[name] for name in self.window])
        parameters = [parameter for parameter in pl_module.parameters() if parameter.requires_grad]
        for parameter, expected in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=TOLERANCE)
        assert max(float(parameter.grad.abs().max()) for parameter in parameters) > 100 * TOLERANCE
        self.sizes.append(len(self.window))
        self.window = []


def test_every_steps_gradient_is_that_of_the_mean_over_its_response_tokens(recipe: Recipe) -> None:
    module, data = make(recipe)
    steps = Steps()
    trainer = fit(module, data, steps)
    assert steps.sizes == [6, 2, 6, 2]  # three micro-batches of two; the last step of an epoch is a ragged one
    assert trainer.global_step == module.total_steps == 4


def test_losses_are_those_of_transformers(recipe: Recipe, base: Path) -> None:
    module, data = make(recipe)
    trainer = fit(module, data, max_epochs=1, limit_train_batches=1, accumulate_grad_batches=1)
    untrained = AutoModelForCausalLM.from_pretrained(base)
    data.loaders["train"].set_epoch(0)
    first = data.loaders["train"].peek().row_ids
    examples = [one for one in data.loaders["train"].rows if one.text_id in first]
    assert float(trainer.callback_metrics["loss"]) == pytest.approx(
        float(plain_loss(untrained, examples)), abs=TOLERANCE
    )
    validation = list(data.loaders["validation"].rows)
    assert len(validation) == 2
    trained = float(plain_loss(module.stack.model, validation))
    assert float(trainer.callback_metrics["val/loss"]) == pytest.approx(trained, abs=TOLERANCE)


class Losses(Callback):
    """Notes every micro-batch's loss; saves the fit at a micro-batch and ends it there, as a kill would."""

    def __init__(self, kill_at: int | None = None, path: Path | None = None) -> None:
        self.losses: list[float] = []
        self.kill_at, self.path = kill_at, path

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses.append(float(trainer.callback_metrics["loss"]))
        if len(self.losses) == self.kill_at:
            trainer.save_checkpoint(str(self.path))
            raise ZeroDivisionError


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_a_killed_fit_goes_on_with_equal_losses(recipe: Recipe, tmp_path: Path, dropout: float) -> None:
    whole, before, after = Losses(), Losses(3, tmp_path / "last.ckpt"), Losses()
    uncut, data = make(recipe, dropout)
    fit(uncut, data, whole, max_epochs=3)
    module, data = make(recipe, dropout)
    with pytest.raises(ZeroDivisionError):
        fit(module, data, before, max_epochs=3)
    module, data = make(recipe, dropout)
    torch.manual_seed(99)  # another process has another state
    fit(module, data, after, checkpoint=tmp_path / "last.ckpt", max_epochs=3)
    assert before.losses + after.losses == whole.losses
    assert len(set(whole.losses)) == 12
    for name, value in uncut.state_dict().items():
        assert torch.equal(module.state_dict()[name], value)


def test_dropout_changes_the_training_alone(recipe: Recipe) -> None:
    curves = {}
    for dropout in (0.0, 0.4):
        module, data = make(recipe, dropout)
        losses = Losses()
        fit(module, data, losses, max_epochs=2)
        curves[dropout] = losses.losses
        trained = float(plain_loss(module.stack.model.eval(), list(data.loaders["validation"].rows)))
        assert float(module.trainer.callback_metrics["val/loss"]) == pytest.approx(trained, abs=TOLERANCE)
    assert curves[0.0][:1] == curves[0.4][:1]  # B is zero
    assert curves[0.0][3:] != curves[0.4][3:]
    with pytest.raises(UsageError, match=r"model\.lora\.dropout: 1 is not in \[0, 1\)"):
        LoRASettings(dropout=1.0)


def test_the_written_model_is_the_base_with_the_adapter(recipe: Recipe, base: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    module, data = make(recipe)
    fit(module, data)
    assert module.write(tmp_path / "sft") == [tmp_path / "sft/adapter", tmp_path / "sft/model"]
    ids = torch.arange(4, 60)[None]
    with torch.no_grad():
        trained = module.stack.model.eval()(input_ids=ids).logits
        plain = AutoModelForCausalLM.from_pretrained(base)
        alone = plain(input_ids=ids).logits
        adapted = PeftModel.from_pretrained(plain, str(tmp_path / "sft/adapter")).eval()(input_ids=ids).logits
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "sft/model")(input_ids=ids).logits
    torch.testing.assert_close(adapted, trained, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(merged, trained, rtol=0, atol=TOLERANCE)
    assert (trained - alone).abs().max() > 1e-2
    assert read_adapter(tmp_path / "sft/adapter").base == str(base)


def test_with_the_stage_on_everything_after_it_has_its_model_as_base(recipe: Recipe) -> None:
    assert recipe.policy_base == str(recipe.layout.stage("sft") / "model")
    found = stage_inputs("align", recipe, {})
    assert found["sft"] == (recipe.layout.stage("sft"), "sipo_pl fit --config sft.yaml")
    recipe.stages = {}
    assert recipe.policy_base == recipe.base_model
    assert "sft" not in stage_inputs("align", recipe, {})
