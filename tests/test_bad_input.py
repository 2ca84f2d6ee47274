# ruff: noqa: E501 (messages stand in the tables as they are said)
"""What a user gets wrong is told in one line, with file, line and key, before any weight is read."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import CHAT_TEMPLATE, make_tiny_adapter, make_tiny_model
from tiny_run import Command, edit, write_recipe, write_rows, write_yaml

FAILED, WRONG_USE = 1, 2
FIT = ("fit", "--config", "{dir}/align.yaml", "--objective", "kind")
SAMPLE = ("predict", "--config", "{dir}/sample.yaml")
PREPARE = ("prepare", "--config", "{dir}/prepare.yaml")
RUN = ("run", "--config", "{dir}/recipe.yaml")


@pytest.fixture(scope="module")
def weightless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a base model without its weights: whatever reads them fails, with another message."""
    folder = make_tiny_model(tmp_path_factory.mktemp("weightless") / "model", chat_template=CHAT_TEMPLATE)
    (folder / "model.safetensors").unlink()
    return folder


@pytest.fixture
def folder(tmp_path: Path, weightless: Path) -> Path:
    """Folder of a recipe over the model without weights."""
    write_recipe(tmp_path, weightless)
    return tmp_path


def fails(command: Command, folder: Path, words: tuple[str, ...], code: int, message: str) -> None:
    """Run a command and assert its exit code and the one line that it says; `{dir}` is the recipe's folder."""
    said = command(*(word.replace("{dir}", str(folder)) for word in words))
    lines = [line for line in said.err.splitlines() if not line.startswith("prepare: ")]  # beside its progress
    assert lines == [f"sipo_pl {words[0]}: {message}".replace("{dir}", str(folder))]
    assert said.code == code


# config files


@pytest.mark.parametrize(
    ("words", "place", "old", "new", "message"),
    [
        (FIT, "align.yaml:7", "optimizer:", "optimiser:", "no key 'model.optimiser'; did you mean 'model.optimizer'?"),
        (FIT, "align.yaml:4", "  lora:", "  lr: 3\n  lora:", "no key 'model.lr'; did you mean 'model.optimizer.init_args.lr'?"),
        (FIT, "align.yaml:5", "r: 2", "rr: 2", "no key 'model.lora.rr'; did you mean 'model.lora.r'?"),
        (FIT, "align.yaml:3", "model:", "modle:", "no key 'modle'; did you mean 'model'?"),
        (FIT, "align.yaml:21", "max_epochs", "max_epoch", "no key 'trainer.max_epoch'; did you mean 'trainer.max_epochs'?"),
        (FIT, "align.yaml:10", "lr:", "lrr:", "model.optimizer.init_args: no key 'lrr'; did you mean 'lr'?"),
        (FIT, "align.yaml:10", "0.01", "fast", "model.optimizer.init_args.lr: expected float or Tensor, found 'fast'"),
        (FIT, "align.yaml:7", "AdamW", "AdmW", "model.optimizer: torch.optim has no 'AdmW'; did you mean 'AdamW'?"),
        (FIT, "align.yaml:14", "length: 64", "length: long", "data.max_length: expected int, found 'long'"),
        (FIT, "align.yaml:21", "max_epochs: 3", "max_epochs: many", "trainer.max_epochs: expected int or null, found 'many'"),
        (FIT, "align.yaml:5:10", "r: 2", "r: [2}", "not YAML: expected ',' or ']', but got '}'"),
        (FIT, "align.yaml:2", "recipe.yaml", "recip.yaml", "recipe: no such file '{dir}/recip.yaml'; did you mean 'recipe.yaml'?"),
        (FIT, "align.yaml:4", "lora:\n    r: 2\n    alpha: 2", "lora: 2", "model.lora: expected keys and values, found '2'"),
        (FIT, "align.yaml", "stage: align", "stage: sample", "stage 'sample' runs with `sipo_pl predict`, not with fit"),
        (FIT, "align.yaml", "stage: align", "stage: alijn", "no stage 'alijn'; did you mean 'align'?"),
        (FIT, "recipe.yaml:2", "base_model", "base_modle", "no key 'base_modle'; did you mean 'base_model'?"),
        (FIT, "recipe.yaml:11", "train:", "trian:", "no key 'data.trian'; did you mean 'data.train'?"),
        (FIT, "recipe.yaml:9", "phrase: more s", "phrse: more s", "objectives[1]: no key 'phrse'; did you mean 'phrase'?"),
        (FIT, "recipe.yaml:7", "class_path", "clas_path", "objectives[0].reward: no key 'clas_path'; did you mean 'class_path'?"),
        (FIT, "recipe.yaml:8", "name: short\n  ", "", "objectives[1]: key 'name' is missing"),
        (PREPARE, "recipe.yaml:11", "- train.j", "- trian.j", "data.train: no such file '{dir}/trian.jsonl'"),
        (PREPARE, "recipe.yaml:20", "sample_weights:\n  points:", "sample_weights:\n  pionts:", "no key 'sample_weights.pionts'; did you mean 'sample_weights.points'?"),
        (RUN, "recipe.yaml:19", "sample_weights", "sample_weight", "no key 'sample_weight'; did you mean 'sample_weights'?"),
        (RUN, "recipe.yaml:1", "name: tiny", "seed: x\nname: tiny", "seed: expected int, found 'x'"),
        (RUN, "recipe.yaml:2", "name: tiny", "name: tiny\nname: small", "key 'name' stands in line 1 already"),
        (RUN, "recipe.yaml:1", "name: tiny", "dtype: float23\nname: tiny", "dtype: expected one of 'float32', 'bfloat16', found 'float23'; did you mean 'float32'?"),
        (RUN, "recipe.yaml:1", "name: tiny", "stages: {revew: false}\nname: tiny", "stages: no stage 'revew'; did you mean 'review'?"),
        (RUN, "recipe.yaml:18", "{raw_prompt}", "{raw_promt}", "template.text: no field {raw_promt}; did you mean 'raw_prompt'?"),
        (RUN, "recipe.yaml:18", "{raw_prompt}", "", "template.text: the field {raw_prompt} is missing"),
        (RUN, "recipe.yaml:19", "0.25,0.75", "0.5,0.75", "sample_weights: weights '0.5,0.75' are off the simplex: they sum to 1.25, not 1"),
        (RUN, "recipe.yaml:19", "0.25,0.75", "kind=0.25,shrt=0.75", "sample_weights: weights 'kind=0.25,shrt=0.75': no objective 'shrt'; did you mean 'short'?"),
        (RUN, "recipe.yaml:1", "name: tiny", "align: together\nname: tiny", "align: together was removed; fits run one after another, or at once with `run --side_by_side 2`"),
        (FIT, "recipe.yaml:1", "name: tiny", "align: together\nname: tiny", "align: together was removed; fits run one after another, or at once with `run --side_by_side 2`"),
        (RUN, "recipe.yaml:3", "name: short", "name: kind", "objectives: the name 'kind' appears 2 times"),
        (RUN, "recipe.yaml:3", "name: short", "name: a/b", "objectives: the name 'a/b' holds more than letters, digits and _ . -"),
        (("filter", "--config", "{dir}/filter.yaml"), "filter.yaml:3", "best_margin", "best_margn", "on_too_few: expected one of 'stop', 'best_margin', found 'best_margn'; did you mean 'best_margin'?"),
    ],
)  # fmt: skip
def test_wrong_config_files(
    folder: Path, command: Command, words: tuple[str, ...], place: str, old: str, new: str, message: str
) -> None:
    edit(folder / place.partition(":")[0], old, new)
    fails(command, folder, words, WRONG_USE, f"{{dir}}/{place}: {message}")
    assert not (folder / "run").exists()


def test_every_required_key_is_asked_for(folder: Path, command: Command) -> None:
    edit(folder / "recipe.yaml", "name: tiny\n", "")
    fails(command, folder, RUN, WRONG_USE, "{dir}/recipe.yaml: missing: 'name'")
    gives = "'recipe.name' is missing; --recipe.name gives it"
    fails(command, folder, PREPARE, WRONG_USE, f"{{dir}}/prepare.yaml: {gives}")
    fails(command, folder, FIT, WRONG_USE, f"{{dir}}/align.yaml: {gives}")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"- a\n- b\n", "expected keys and values, found a list"),
        (b"a: \xff\n", "not UTF-8 text: invalid start byte at byte 3"),
    ],
)
def test_files_that_are_no_config(folder: Path, command: Command, content: bytes, problem: str) -> None:
    (folder / "recipe.yaml").write_bytes(content)
    fails(command, folder, RUN, WRONG_USE, f"{{dir}}/recipe.yaml: {problem}")


# the command line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*FIT, "--model.lora.rr", "3"), "no option '--model.lora.rr'; did you mean '--model.lora.r'?"),
        ((*FIT, "--trainer.max_epoch", "3"), "no option '--trainer.max_epoch'; did you mean '--trainer.max_epochs'?"),
        ((*FIT, "--modle.lora.r=3"), "no option '--modle.lora.r'; did you mean '--model.lora.r'?"),
        ((*FIT, "--recipe.sed", "3"), "no option '--recipe.sed'; did you mean '--recipe.seed'?"),
        ((*FIT, "--overwrit"), "no option '--overwrit'; did you mean '--overwrite'?"),
        ((*FIT, "--model.warmup", "fast"), "--model.warmup: expected float, found 'fast'"),
        ((*FIT, "--model.loss", "sipo_pl.method.losses.DPOO"), "--model.loss: sipo_pl.method.losses has no 'DPOO'; did you mean 'DPO'?"),
        ((*FIT, "--recipe", "{dir}/nope.yaml"), "--recipe: no such file '{dir}/nope.yaml'"),
        ((*FIT[:-1], "kin"), "no objective 'kin'; did you mean 'kind'?"),
        (FIT[:-2], "{dir}/align.yaml: 'objective' is missing; --objective gives it"),
        (("fit", "--config", "{dir}/sample.yaml"), "{dir}/sample.yaml: stage 'sample' runs with `sipo_pl predict`, not with fit"),
        (("predict", "--config", "{dir}/filter.yaml"), "{dir}/filter.yaml: stage 'filter' runs with `sipo_pl filter`, not with predict"),
        (("prepare", "--config", "{dir}/align.yaml"), "{dir}/align.yaml: stage 'align' runs with `sipo_pl fit`, not with prepare"),
        (("fit", "--config", "{dir}/recipe.yaml"), "{dir}/recipe.yaml: a recipe, not the config of a stage; `sipo_pl run --config {dir}/recipe.yaml` runs it"),
        (("run", "--config", "{dir}/align.yaml"), "{dir}/align.yaml: the config of stage 'align', not a recipe; `sipo_pl fit --config {dir}/align.yaml` runs it"),
        (("fit", "--config", "{dir}/alin.yaml"), "--config {dir}/alin.yaml: no such file; did you mean '{dir}/align.yaml'?"),
        (("fit", "--config", "quickstart/alin.yaml"), "--config quickstart/alin.yaml: no such file; did you mean 'quickstart/align.yaml'?"),
        (("run", "--config", "quickstart"), "--config quickstart: no such file; did you mean 'quickstart/recipe.yaml'?"),
        (("run", "--config", "quikstart"), "--config quikstart: no such file; did you mean 'quickstart/recipe.yaml'?"),
        (("run", "--config", "{dir}"), "--config {dir}: no such file; did you mean '{dir}/recipe.yaml'?"),
        (("review",), "no such command; the stage review is run by: sipo_pl predict --config review.yaml"),
        (("evaluate-align",), "no such command; the stage evaluate-align is run by: sipo_pl predict --config evaluate.yaml --policies align"),
        (("rum",), "no such command; did you mean 'run'?"),
        ((*FIT, "--model.lr", "3"), "no option '--model.lr'; did you mean '--model.optimizer.init_args.lr'?"),
        ((*FIT, "--beta", "3"), "no option '--beta'; did you mean '--recipe.beta'?"),
        (("fit", "--stage", "alijn"), "no stage 'alijn'; did you mean 'align'?"),
        ((*SAMPLE, "--model.split", "tests"), "--model.split: expected one of 'train_conflict', 'test', found 'tests'; did you mean 'test'?"),
        ((*SAMPLE, "--model.decoding.temperature", "0"), "samples_per_weight: greedy decoding gives one response; set decoding.temperature above 0"),
        ((*SAMPLE, "--recipe.sample_weights.points", '["1.5,-0.5"]'), "--recipe.sample_weights.points: weights '1.5,-0.5' are off the simplex: each must lie in [0, 1]"),
        ((*PREPARE, "--recipe.sed", "3"), "no option '--recipe.sed'; did you mean '--recipe.seed'?"),
        ((*PREPARE, "--recipe.seed", "x"), "--recipe.seed: expected int, found 'x'"),
        (("run",), "'config' is missing; --config gives it"),
        ((*RUN, "--dryrun"), "no option '--dryrun'; did you mean '--dry_run'?"),
        ((*RUN, "--limit", "0"), "--limit: expected a number >0, found 0"),
        ((*RUN, "--set", "algn.model.lora.r=3"), "--set 'algn.model.lora.r=3': no stage 'algn'; did you mean 'align'?"),
        ((*RUN, "--set", "align.model.lora.r"), "--set 'align.model.lora.r': expected STAGE.KEY=VALUE, such as align.model.lora.r=8"),
        ((*RUN, "--set", "recipe.sed=3"), "no setting 'recipe.sed'; did you mean 'recipe.seed'?"),
        ((*RUN, "--set", "recipe.align=together"), "recipe.align: together was removed; fits run one after another, or at once with `run --side_by_side 2`"),
        ((*RUN, "--set", "recipe.seed=x"), "recipe.seed: expected int, found 'x'"),
        ((*RUN, "--only", "sampel"), "no stage 'sampel' in this recipe; did you mean 'sample'?"),
        ((*RUN, "--from", "realing"), "no stage 'realing' in this recipe; did you mean 'realign'?"),
        ((*RUN, "--until", "align-knd"), "no stage 'align-knd' in this recipe; did you mean 'align-kind'?"),
    ],
)  # fmt: skip
def test_wrong_options(folder: Path, command: Command, words: tuple[str, ...], message: str) -> None:
    fails(command, folder, words, WRONG_USE, message)
    assert not (folder / "run").exists()


def test_an_overlay_of_an_unknown_stage(folder: Path, command: Command) -> None:
    write_yaml(folder / "over.yaml", {"aling": {"model": {"warmup": 0.0}}})
    message = "{dir}/over.yaml: no stage 'aling'; did you mean 'align'?"
    fails(command, folder, (*RUN, "--config", "{dir}/over.yaml"), WRONG_USE, message)


def test_a_run_checks_its_last_stage_before_the_first_begins(folder: Path, command: Command) -> None:
    edit(folder / "realign.yaml", "r: 2", "rr: 2")
    said = command("run", "--config", folder / "recipe.yaml")
    assert said.code == WRONG_USE
    assert said.err.splitlines()[-1] == "nothing was run"
    message = f"sipo_pl fit: {folder}/realign.yaml:5: no key 'model.lora.rr'; did you mean 'model.lora.r'?"
    assert message in (folder / "run/run.log").read_text()
    assert not (folder / "run/prepare").exists()


# data


def with_rows(folder: Path, split: str, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Change the raw rows of a split in place."""
    path = folder / f"{split}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    change(rows)
    write_rows(path, rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[4].pop("short"), "{dir}/train.jsonl:5: no key 'short'; known: kind, prompt, response"),
        (lambda rows: rows[4].update(shrt=rows[4].pop("short")), "{dir}/train.jsonl:5: no key 'short'; did you mean 'shrt'?"),
        (lambda rows: rows[2].update(kind="4"), "{dir}/train.jsonl:3: key 'kind': expected a number, found the string \"4\""),
        (lambda rows: rows[2].update(prompt=None), "{dir}/train.jsonl:3: key 'prompt': expected text or a list of chat messages, found null"),
        (lambda rows: rows.clear(), "{dir}/train.jsonl: holds no rows"),
        (lambda rows: rows.__delitem__(slice(1, None)), "data.train: nothing is left; dropped: 1 prompts with one response"),
        (lambda rows: [row.update(kind=1, short=1) for row in rows], "data.train: nothing is left; dropped: 6 pairs tied in every objective"),
        (lambda rows: [row.update(response="x" * 600) if i % 2 else row for i, row in enumerate(rows)], "data.train: nothing is left; dropped: 6 pairs over 512 tokens"),
    ],
)  # fmt: skip
def test_wrong_data(folder: Path, command: Command, change: Callable[..., object], message: str) -> None:
    with_rows(folder, "train", change)
    fails(command, folder, PREPARE, FAILED, message)
    assert not (folder / "run/prepare/train.jsonl").exists()


def test_malformed_json(folder: Path, command: Command) -> None:
    lines = (folder / "validation.jsonl").read_text().splitlines()
    lines[2] = lines[2].replace('", "response', '" "response')
    (folder / "validation.jsonl").write_text("\n".join(lines))
    fails(command, folder, PREPARE, FAILED, "{dir}/validation.jsonl:3: not JSON: Expecting ',' delimiter at column 27")


def test_an_objective_without_a_pair(folder: Path, command: Command) -> None:
    with_rows(folder, "train", lambda rows: [row.update(kind=1) for row in rows])
    assert command(*(word.replace("{dir}", str(folder)) for word in PREPARE)).code == 0
    said = command(*(word.replace("{dir}", str(folder)) for word in FIT))
    assert said.code == FAILED
    message = f"{folder}/run/prepare/train.jsonl: no pair left for objective 'kind' (left out: 6 tie)"
    assert said.err.splitlines()[-1] == f"sipo_pl fit: {message}"


def test_a_missing_input_says_what_makes_it(folder: Path, command: Command) -> None:
    message = "{dir}/run/prepare: no such input; `sipo_pl prepare --config prepare.yaml` makes it"
    fails(command, folder, FIT, FAILED, message)
    assert command(*(word.replace("{dir}", str(folder)) for word in PREPARE)).code == 0
    message = "{dir}/run/align-kind/adapter: no such input; `sipo_pl fit --config align.yaml --objective kind` makes it"
    fails(command, folder, SAMPLE, FAILED, message)


# tokenizers


def make_weightless(folder: Path, **tokenizer: Any) -> Path:
    make_tiny_model(folder, **tokenizer)
    (folder / "model.safetensors").unlink()
    return folder


def test_a_tokenizer_without_pad_is_used_as_it_is(tmp_path: Path, command: Command) -> None:
    write_recipe(tmp_path, make_tiny_model(tmp_path / "model", pad=False))
    for words in (PREPARE, FIT):
        said = command(*(word.replace("{dir}", str(tmp_path)) for word in words))
        assert said.code == 0, said.err
    assert (tmp_path / "run/align-kind/adapter").is_dir()


def test_a_tokenizer_without_bos_is_used_as_it_is(tmp_path: Path, command: Command) -> None:
    write_recipe(tmp_path, make_weightless(tmp_path / "model", bos=False))
    assert command(*(word.replace("{dir}", str(tmp_path)) for word in PREPARE)).code == 0


def test_a_tokenizer_without_chat_template(tmp_path: Path, command: Command) -> None:
    write_recipe(tmp_path, make_weightless(tmp_path / "model"), template={"kind": "chat"})
    message = "template.kind is chat, but the tokenizer has no chat template; use kind: plain"
    fails(command, tmp_path, PREPARE, FAILED, message)


def test_a_tokenizer_without_eos(tmp_path: Path, command: Command) -> None:
    write_recipe(tmp_path, make_weightless(tmp_path / "model", eos=False))
    message = "the tokenizer has no EOS token, so that no response could end; set its eos_token"
    fails(command, tmp_path, PREPARE, FAILED, message)


def test_a_base_model_that_is_not_there(folder: Path, command: Command) -> None:
    words = (*PREPARE, "--recipe.base_model", "./modle")
    fails(command, folder, words, FAILED, "base_model: no folder './modle' (a hub name reads owner/name)")


# adapters that are brought along


@pytest.fixture
def aligned(tmp_path: Path, talkative_model: Path, command: Command) -> Path:
    """Folder of a prepared recipe, with an adapter of its model in `own`."""
    write_recipe(tmp_path, talkative_model)
    make_tiny_adapter(tmp_path / "own", talkative_model, 1)
    assert command(*(word.replace("{dir}", str(tmp_path)) for word in PREPARE)).code == 0
    return tmp_path


def bring(folder: Path, *adapters: str) -> None:
    """Name the objectives' adapters in the recipe."""
    values = yaml.safe_load((folder / "recipe.yaml").read_text())
    for objective, adapter in zip(values["objectives"], adapters, strict=True):
        objective["adapter"] = str(folder / adapter)
    write_yaml(folder / "recipe.yaml", values)


def test_a_missing_adapter(aligned: Path, command: Command) -> None:
    bring(aligned, "own", "onw")
    problem = "no PEFT adapter in '{dir}/onw' (adapter_config.json is missing); did you mean '{dir}/own'?"
    fails(command, aligned, SAMPLE, WRONG_USE, f"{{dir}}/recipe.yaml:3: objectives: adapter of 'short': {problem}")


def test_an_adapter_of_another_base(aligned: Path, command: Command) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=260)).save_pretrained(aligned / "small")
    make_tiny_adapter(aligned / "other", aligned / "small", 1)
    bring(aligned, "own", "other")
    said = command(*(word.replace("{dir}", str(aligned)) for word in SAMPLE))
    assert said.code == FAILED
    module = "model.layers.0.self_attn.k_proj"
    problem = f"'{module}' maps 32 to 32 features, the base model's layer 64 to 32: an adapter of another base?"
    assert said.err.splitlines()[-1] == f"sipo_pl predict: {aligned}/other: {problem}"


def test_adapters_of_other_ranks_are_no_soup(aligned: Path, talkative_model: Path, command: Command) -> None:
    make_tiny_adapter(aligned / "wide", talkative_model, 2, r=6)
    bring(aligned, "own", "wide")
    assert command(*(word.replace("{dir}", str(aligned)) for word in SAMPLE)).code == 0  # ranks pad there
    said = command("predict", "--config", aligned / "score.yaml", "--model.rewrites", "false")
    assert said.code == FAILED
    problem = "adapters of different ranks or target modules cannot be interpolated"
    way_out = "--model.soups false scores without interpolated policies"
    assert said.err.splitlines()[-1] == f"sipo_pl predict: {aligned}/own, {aligned}/wide: {problem}; {way_out}"


# output folders


def test_an_output_folder_that_holds_something_else(folder: Path, command: Command) -> None:
    (folder / "run/prepare").mkdir(parents=True)
    (folder / "run/prepare/thesis.txt").write_text("years of work")
    problem = "holds files but no manifest.json; remove it or choose another run_dir"
    fails(command, folder, PREPARE, FAILED, f"{{dir}}/run/prepare: {problem}")
    problem = "not a stage folder, so it is not overwritten; remove it or choose another run_dir"
    fails(command, folder, (*PREPARE, "--overwrite"), FAILED, f"{{dir}}/run/prepare: {problem}")
    assert (folder / "run/prepare/thesis.txt").read_text() == "years of work"


def test_changed_settings_of_a_finished_stage(finished_run: Path, command: Command) -> None:
    words = (*FIT, "--model.lora.r", "4", "--trainer.max_epochs", "5")
    differs = "model.lora.r: 2 there, 4 asked; trainer.max_epochs: 3 there, 5 asked"
    message = f"{{dir}}/run/align-kind was made by other settings: {differs} (--overwrite makes it anew)"
    fails(command, finished_run, words, FAILED, message)
    words = ("filter", "--config", "{dir}/filter.yaml", "--min_kept", "3")
    message = "{dir}/run/filter was made by other settings: min_kept: 8 there, 3 asked (--overwrite makes it anew)"
    fails(command, finished_run, words, FAILED, message)


def test_a_finished_stage_has_nothing_to_do(finished_run: Path, command: Command) -> None:
    message = "align-kind: complete, nothing to do ({dir}/run/align-kind)".replace("{dir}", str(finished_run))
    said = command(*(word.replace("{dir}", str(finished_run)) for word in FIT))
    assert (said.code, said.err) == (0, f"{message}\n")


def test_other_data_under_a_finished_preparation(finished_run: Path, tmp_path: Path, command: Command) -> None:
    shutil.copytree(finished_run, tmp_path, dirs_exist_ok=True)
    edit(tmp_path / "recipe.yaml", f"{finished_run}/run", f"{tmp_path}/run")
    with_rows(tmp_path, "test", lambda rows: rows.pop())
    said = command(*(word.replace("{dir}", str(tmp_path)) for word in PREPARE))
    assert said.code == FAILED
    assert said.err.startswith(f"sipo_pl prepare: {tmp_path}/run/prepare was made by other settings: input test/0: ")
