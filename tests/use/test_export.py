"""Exported folders: they load without this program, and say what their kind says."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from lively_run import Lively, set_recipe
from safetensors.torch import load_file
from tiny import CHAT_TEMPLATE, make_tiny_model
from tiny_run import Command, environment
from transformers import AutoModelForCausalLM, AutoTokenizer

from sipo_pl.engine.lora.adapters import interpolate, read_adapter, weighted_sum
from sipo_pl.engine.lora.policies import Policy, stack_policies
from sipo_pl.storage.json_lines import write_json
from sipo_pl.storage.model_hashes import tokenizer_hash
from sipo_pl.use.api import load
from sipo_pl.use.export import KINDS

POINT = "kind=0.6,short=0.4"
WEIGHTS = (0.6, 0.4)
IDS = tuple(range(40, 70))

# what another machine does with the folders: transformers, peft and nothing of ours
ELSEWHERE = """
import contextlib, io, json, os, re, sys
sys.modules["sipo_pl"] = None
import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
out, base, ids = sys.argv[1], sys.argv[2], torch.tensor([json.loads(sys.argv[3])])
found, said = {}, {}
def adapted(folder):
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
models = {
    "interpolated": lambda: adapted(out + "/interpolated"),
    "sum": lambda: adapted(out + "/sum"),
    "merged": lambda: AutoModelForCausalLM.from_pretrained(out + "/merged"),
    "kind": lambda: adapted(out + "/policies/policies/kind"),
    "short": lambda: adapted(out + "/policies/policies/short"),
}
for name, model in models.items():
    with torch.inference_mode():
        found[name] = model().eval()(input_ids=ids).logits[0].clone()
for name in ("interpolated", "sum", "merged", "policies"):
    os.chdir(out + "/" + name)
    (code,) = re.findall(r"```python\\n(.*?)```", open("README.md").read(), re.DOTALL)
    torch.manual_seed(0)
    with contextlib.redirect_stdout(io.StringIO()) as stream:
        exec(code.replace("PATH_OF_THE_BASE_MODEL", base), {})
    said[name] = stream.getvalue().removesuffix("\\n")
save_file(found, out + "/logits.safetensors")
json.dump(said, open(out + "/said.json", "w"))
"""


@pytest.fixture(scope="module")
def exported(lively: Lively, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of all four kinds."""
    from sipo_pl.cli import main as cli

    out = tmp_path_factory.mktemp("exported")
    assert cli.main(["export", "--run", str(lively.run), "--weights", POINT, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def elsewhere(exported: Path, lively: Lively) -> Path:
    words = [sys.executable, "-c", ELSEWHERE, str(exported), str(lively.base), json.dumps(IDS)]
    result = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr
    return exported


@torch.inference_mode()
def test_logits_are_those_of_the_kind(elsewhere: Path, lively: Lively) -> None:
    factors = [read_adapter(lively.run / f"realign-{name}" / "adapter").factors for name in ("kind", "short")]
    groups = [*factors, interpolate(factors, WEIGHTS), weighted_sum(factors, WEIGHTS)]
    policies = stack_policies([Policy(str(lively.base), group) for group in groups], "float32")
    with policies.active(range(4)) as forward:
        hidden, _ = forward.read([IDS], [], [0], keep=False)
        expected = dict(zip(("kind", "short", "interpolated", "sum"), forward.logits(hidden[:, 0]), strict=True))
    found = load_file(elsewhere / "logits.safetensors")
    assert (expected["sum"] - expected["interpolated"]).abs().max() > 0.05  # the kinds differ
    for name, logits in {**expected, "merged": expected["sum"]}.items():
        torch.testing.assert_close(found[name], logits, rtol=1e-4, atol=1e-4)


def test_the_code_of_the_cards_runs_and_fuses(elsewhere: Path, lively: Lively) -> None:
    said = json.loads((elsewhere / "said.json").read_text())
    assert set(said) == set(KINDS)
    answer = load(lively.run).fuse(POINT).generate(["Why is the sky blue?"], max_new_tokens=64)[0]
    assert len(answer) > 5
    assert said["policies"] == answer
    assert all(said[kind] for kind in KINDS)


def test_every_folder_holds_what_its_tools_need(exported: Path, lively: Lively) -> None:
    template = load(lively.run).template
    for kind in KINDS:
        names = {path.name for path in (exported / kind).iterdir()}
        assert {"README.md", "tokenizer.json", "chat_template.jinja", "generation_config.json"} <= names
        tokenizer = AutoTokenizer.from_pretrained(exported / kind)
        for prompt in ("test 0", 'It\'s "quoted"\n{x}'):
            ids = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], return_dict=False)
            assert ids == template.prompt_ids(prompt)
        settings = json.loads((exported / kind / "generation_config.json").read_text())
        assert settings["eos_token_id"] == template.eos_id
        # as the run's evaluation decoded; top_k would be 50 by itself
        assert (settings["do_sample"], settings["top_k"], settings["max_new_tokens"]) == (True, 0, 12)


def test_an_export_keeps_all_end_tokens_and_the_date_of_its_run(
    lively: Lively, tmp_path: Path, command: Command
) -> None:
    run, base, out = tmp_path / "run", tmp_path / "model", tmp_path / "out"
    shutil.copytree(lively.run, run)
    shutil.copytree(lively.base, base)
    generation = json.loads((base / "generation_config.json").read_text())
    write_json(base / "generation_config.json", {**generation, "eos_token_id": [2, 77]})
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = "{{ 'Now %s. ' % strftime_now('%H:%M:%S, %d %b %Y') }}" + CHAT_TEMPLATE
    tokenizer.save_pretrained(base)
    set_recipe(run, base_model=str(base), template={"kind": "chat"})
    for path in run.glob("*/manifest.json"):  # as if the policies had been trained with it
        manifest = json.loads(path.read_text())
        manifest["inputs"] |= {"tokenizer": tokenizer_hash(str(base))} if "tokenizer" in manifest["inputs"] else {}
        write_json(path, manifest)
    prepared = json.loads((run / "prepare/manifest.json").read_text())
    notes = {"date": "2024-07-26T09:08:07", "template_shows_date": True}
    write_json(run / "prepare/manifest.json", {**prepared, "notes": notes})
    words = ("--weights", POINT, "--kinds", "policies", "--prompts", 0)
    said = command("export", "--run", run, *words, "--out", out)
    assert said.code == 0, said.err
    settings = json.loads((out / "policies/generation_config.json").read_text())
    assert settings["eos_token_id"] == [2, 77]
    assert "if token in [2, 77]:" in (out / "policies/README.md").read_text()
    tokenizer = AutoTokenizer.from_pretrained(out / "policies")
    whole = tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    assert whole.startswith("Now 09:08:07, 26 Jul 2024. <s>user\nx")
    for folder in (run, out / "policies"):  # chat and serve read them so
        loaded = load(folder)
        assert loaded.template.end_ids == {2, 77}
        assert loaded.template.render("x").startswith(whole)


def test_the_cards_tell_weights_scores_and_distances(exported: Path) -> None:
    for kind in KINDS:
        card = ModelCard.load(exported / kind / "README.md")
        assert card.data.library_name == ("transformers" if kind == "merged" else "peft")
        assert card.data.base_model is None  # a local folder is no model of the hub
        assert "# tiny: kind=0.6,short=0.4" in card.text
        assert "These weights were not evaluated" in card.text
        assert "| 0.75,0.25 |" in card.text
        assert str(exported) not in card.text
        assert str(Path.home()) not in card.text
    rows = {
        cells[1].strip(" *"): float(cells[2])
        for line in (exported / "sum" / "README.md").read_text().splitlines()
        if len(cells := line.split("|")) == 5 and "%" in cells[3]
    }
    assert set(rows) == {"policy kind alone", "policy short alone", "interpolated", "sum", "base model"}
    assert 0 < rows["sum"] < rows["base model"]


def test_names_of_the_hub_are_metadata(command: Command, lively: Lively, tmp_path: Path) -> None:
    words = ("--base_name", "someone/tiny", "--kinds", "sum", "--prompts", "0", "--out", tmp_path / "out")
    assert command("export", "--run", lively.run, "--weights", "0.75,0.25", *words).code == 0
    text = (tmp_path / "out" / "sum" / "README.md").read_text()
    metadata = yaml.safe_load(text.split("---")[1])
    assert (metadata["base_model"], metadata["base_model_relation"]) == ("someone/tiny", "adapter")
    assert 'base, folder = "someone/tiny", "."' in text
    assert "**0.75,0.25**" in text
    assert "Not measured" in text
    config = json.loads((tmp_path / "out" / "sum" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "someone/tiny"
    again = command("export", "--run", lively.run, "--weights", "0.75,0.25", *words)
    assert (again.code, "is there already" in again.err) == (1, True)


def test_a_merged_model_in_bfloat16_tells_its_drift(command: Command, lively: Lively, tmp_path: Path) -> None:
    words = ("--kinds", "merged", "--prompts", "0", "--dtype", "bfloat16", "--out", tmp_path)
    assert command("export", "--run", lively.run, "--weights", POINT, *words).code == 0
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert model.dtype == torch.bfloat16
    assert "logits differ from base + adapter by at most" in (tmp_path / "merged" / "README.md").read_text()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--weights", "0.7,0.4"), 2, "they sum to 1.1, not 1"),
        (("--weights", "kind=0.7,shrt=0.3"), 2, "no objective 'shrt'; did you mean 'short'?"),
        (("--weights", "0.2,0.3,0.5"), 2, "3 numbers for 2 objectives"),
        (("--weights", POINT, "--kinds", "concat"), 2, "concat"),
        (("--weights", POINT, "--push_to_hub", "someone/x"), 2, "choose it by --kinds"),
        (("--weights", POINT, "--push_to_hub", "x", "--kinds", "sum"), 2, "expected owner/name"),
    ],
)
def test_wrong_words_are_refused(
    command: Command, lively: Lively, words: tuple[str, ...], code: int, said: str
) -> None:
    found = command("export", "--run", lively.run, *words)
    assert (found.code, said in found.err) == (code, True), found.err


def test_nothing_is_uploaded_offline_and_the_folder_stays(command: Command, lively: Lively, tmp_path: Path) -> None:
    words = ("--kinds", "sum", "--prompts", "0", "--out", tmp_path, "--push_to_hub", "someone/x")
    found = command("export", "--run", lively.run, "--weights", POINT, *words)
    assert (found.code, "--push_to_hub someone/x:" in found.err) == (1, True), found.err
    assert (tmp_path / "sum" / "README.md").is_file()


def test_foreign_bases_are_refused(command: Command, lively: Lively, tmp_path: Path) -> None:
    base = make_tiny_model(tmp_path / "base", seed=9)
    words = ("export", "--run", lively.run, "--weights", POINT, "--prompts", "0", "--kinds", "sum", "--out")
    alike = command(*words, tmp_path / "a", "--base_model", base)
    assert alike.code == 0
    assert "not the model that the policies were trained on" in alike.err
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    fewer = command(*words, tmp_path / "b", "--base_model", base)
    assert fewer.code == 1
    assert "an adapter of another base?" in fewer.err


def test_no_run_there_is_said(command: Command, exported: Path, tmp_path: Path) -> None:
    assert "no run here" in command("export", "--run", tmp_path, "--weights", POINT).err
    assert "no such folder" in command("export", "--run", tmp_path / "x", "--weights", POINT).err
    assert "exported policies" in command("export", "--run", exported / "policies", "--weights", POINT).err
    assert "an adapter, to be loaded with" in command("export", "--run", exported / "sum", "--weights", POINT).err
