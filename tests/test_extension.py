"""A loss, a converter, an objective, a reward, a divergence and a method take the steps of CONTRIBUTING and no other.

A copy of the package follows them, and runs. `test_extension_stage.py` does so for a stage.
"""

import csv
import json
import os
import re
import textwrap
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import yaml
from contributing import PACKAGE, add_module, add_stage, blocks, copy_package, run_in
from serving import serve
from tiny_run import STAGE_CONFIGS, edit, write_recipe, write_rows, write_yaml

from sipo_pl.data.units import read_units
from sipo_pl.storage.json_lines import read_json, read_jsonl
from sipo_pl.storage.manifest import Manifest

METHOD = "Add a comparison method"


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a copy of the package that has all that the page shows but the stage."""
    folder = copy_package(tmp_path_factory.mktemp("extended"))
    for title in ("Add a loss", "Add a data set", "Add a reward", "Add a fusion rule"):
        add_module(folder, title)
    entry, stage, _ = blocks(METHOD, "text")
    registry = folder / "sipo_pl/registry/stages.py"
    last = re.findall(r'^METHODS = \{\n(?:    ".*\n)*\}\n', registry.read_text(encoding="utf-8"), re.MULTILINE)[0]
    edit(registry, last, last.removesuffix("}\n") + textwrap.indent(entry, "    ") + "}\n")
    add_stage(folder, stage, before="consistency")
    return folder


def page(title: str) -> dict[str, Any]:
    """Return the YAML of the last step under a title."""
    (text,) = blocks(title, "yaml")
    return yaml.safe_load(text)


def change(path: Path, **values: Any) -> dict[str, Any]:
    """Change keys of a YAML file; return all of it."""
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    write_yaml(path, {**found, **values})
    return {**found, **values}


def rank(folder: Path, names: list[str]) -> None:
    """Write the data of a tiny recipe as ranked responses, those of the first objective against all others."""
    for split in ("train", "validation", "test"):
        rows = read_jsonl(folder / f"{split}.jsonl")
        pairs = zip(rows[::2], rows[1::2], strict=True)
        ranked = [
            {
                "prompt": one["prompt"],
                "responses": [one["response"], two["response"]],
                **{name: [1, 2] if index else [2, 1] for index, name in enumerate(names)},
            }
            for one, two in pairs
        ]
        write_rows(folder / f"{split}.jsonl", ranked)


def test_what_the_page_adds_runs_together(extended: Path, tmp_path: Path, talkative_model: Path) -> None:
    off = dict.fromkeys(("review", "combine", "evaluate-align", "report"), False)
    recipe = write_recipe(tmp_path, talkative_model, stages=off, divergence=page("Add a fusion rule")["divergence"])
    values = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    values["objectives"].append(page("Add a reward")["objectives"][0])
    values["data"]["converter"] = page("Add a data set")["data"]["converter"]
    names = [one["name"] for one in values["objectives"]]
    point = ",".join(f"{name}={weight}" for name, weight in zip(names, (0.5, 0.25, 0.25), strict=True))
    plan = {"points": [point]}
    write_yaml(recipe, {**values, "sample_weights": plan, "evaluate_weights": plan})
    rank(tmp_path, names)
    for stage in ("align", "realign"):
        config = yaml.safe_load((tmp_path / f"{stage}.yaml").read_text(encoding="utf-8"))
        config["trainer"]["max_epochs"] = 1
        if stage == "align":
            config["model"]["loss"] = page("Add a loss")["model"]["loss"]
        write_yaml(tmp_path / f"{stage}.yaml", config)
    run_in(extended, "-m", "sipo_pl", "run", "--config", recipe)

    run = tmp_path / "run"
    pair = read_jsonl(run / "prepare/train.jsonl")[0]
    assert pair["preferred"] == {"kind": 1, "short": 0, "curiosity": 0}
    recorded = yaml.safe_load((run / "align-curiosity/config.yaml").read_text(encoding="utf-8"))
    assert recorded["model"]["loss"]["class_path"] == "sipo_pl.method.losses.ipo.IPO"
    measured = Manifest.read(run / "measure-realign")
    assert measured is not None
    assert measured.complete
    assert {"kind", "short", "curiosity"} == set(read_units(run / "measure-realign")[0]["rewards"])
    texts = {row["sample_id"]: row["text"] for row in read_units(run / "evaluate-realign")}
    for row in read_units(run / "measure-realign"):
        assert row["rewards"]["curiosity"] == min(texts[row["sample_id"]].count("?"), 2)

    exported = tmp_path / "out/policies"
    program = f"""
from sipo_pl.cli.main import main
from sipo_pl.use.api import load
words = ["--weights", {point!r}, "--kinds", "policies", "--out", {str(exported.parent)!r}, "--prompts", "1"]
assert main(["export", "--run", {str(run)!r}, *words]) == 0
print("answered", load({str(exported)!r}).fuse().generate(["a question"], max_new_tokens=4))
"""
    assert "answered" in run_in(extended, "-c", program)  # no option: the package holds the class
    assert read_json(exported / "fusion.json")["divergence"] == {
        "class_path": "sipo_pl.method.divergences.chi_squared.ChiSquared",
        "init_args": {},
    }


def test_a_method_of_the_page_is_compared(extended: Path, tmp_path: Path, talkative_model: Path) -> None:
    recipe = write_recipe(tmp_path, talkative_model, methods=["sft", "mod_ipo"])
    values = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    for objective, name in zip(values["objectives"], ("Detail", "Brevity"), strict=True):
        objective["reward"] = {"class_path": f"sipo_pl.rewards.text.{name}"}
    write_yaml(recipe, {**values, "evaluate_weights": {"points": ["0.5,0.5"]}})
    fit = yaml.safe_load(blocks(METHOD, "text")[2])
    write_yaml(tmp_path / "align_ipo.yaml", {**STAGE_CONFIGS["align"], **fit, "data": STAGE_CONFIGS["align"]["data"]})
    answer = {**STAGE_CONFIGS["evaluate"], "stage": "answer"}
    write_yaml(tmp_path / "answer.yaml", {**answer, "model": {"decoding": answer["model"]["decoding"]}})
    write_yaml(tmp_path / "judge.yaml", {**STAGE_CONFIGS["measure"], "stage": "judge"})
    write_yaml(tmp_path / "compare.yaml", {"stage": "compare", "recipe": "recipe.yaml", "resamples": 50})
    run_in(extended, "-m", "sipo_pl", "run", "--config", recipe)

    folder = tmp_path / "run"
    recorded = yaml.safe_load((folder / "align_ipo-short/config.yaml").read_text(encoding="utf-8"))
    assert recorded["model"]["loss"]["class_path"] == "sipo_pl.method.losses.ipo.IPO"
    with (folder / "compare/table.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["sft", "mod_ipo"]
    assert int(rows["mod_ipo"]["trained_tokens"]) > 0
    assert "MOD of IPO policies" in (folder / "compare/report.html").read_text(encoding="utf-8")
    assert json.loads((folder / "compare/metrics.json").read_text(encoding="utf-8"))


def test_a_loss_and_a_divergence_from_outside_the_package_run_and_are_used(
    tmp_path: Path, talkative_model: Path
) -> None:
    desk = tmp_path / "desk"
    desk.mkdir()
    for name, title in (("my_loss", "Add a loss"), ("my_rules", "Add a fusion rule")):
        (desk / f"{name}.py").write_text(blocks(title, "python")[0], encoding="utf-8")
    recipe = write_recipe(tmp_path, talkative_model, divergence={"class_path": "my_rules.ChiSquared"})
    align = yaml.safe_load((tmp_path / "align.yaml").read_text(encoding="utf-8"))
    align["model"]["loss"] = {"class_path": "my_loss.IPO", "init_args": {"target": 0.4}}
    align["trainer"]["max_epochs"] = 1
    write_yaml(tmp_path / "align.yaml", align)
    run_in(desk, "-m", "sipo_pl", "run", "--config", recipe, "--only", "prepare", "align")

    (desk / "moved").mkdir()
    (desk / "my_loss.py").unlink()  # policies in use need no loss
    program = f"""
import io, shutil, sys
from sipo_pl.cli.main import main
from sipo_pl.use.api import load
run, out = {str(tmp_path / "run")!r}, {str(tmp_path / "out")!r}
half = ["--weights", "0.5,0.5"]
assert main(["export", "--run", run, *half, "--kinds", "policies", "--out", out, "--prompts", "0"]) == 0
exported = out + "/policies"
own = load(run).fuse("0.5,0.5").generate(["a question"], max_new_tokens=4)
assert load(exported, divergence="my_rules.ChiSquared").fuse().generate(["a question"], max_new_tokens=4) == own
short = [*half, "--max_new_tokens", "2"]
for folder, more, code in ((run, [], 0), (exported, [], 1), (exported, ["--divergence", "my_rules.ChiSquared"], 0)):
    sys.stdin = io.StringIO("hello")
    assert main(["chat", "--model", folder, *short, *more]) == code
shutil.move("my_rules.py", "moved/rules.py")
del sys.modules["my_rules"]
assert main(["chat", "--model", run, *short]) == 2
sys.stdin = io.StringIO("hello")
assert main(["chat", "--model", run, *short, "--divergence", "moved.rules.ChiSquared"]) == 0
print("done")
"""
    assert "done" in run_in(desk, "-c", program)
    card = (tmp_path / "out/policies/README.md").read_text(encoding="utf-8")
    assert "sipo_pl chat --model . --weights kind=0.5,short=0.5 --divergence my_rules.ChiSquared" in card
    options = ["--weights", "0.5,0.5", "--divergence", "moved.rules.ChiSquared"]
    path = os.pathsep.join(map(str, (desk, PACKAGE.parent)))
    with serve(tmp_path / "out/policies", tmp_path / "serve.log", *options, PYTHONPATH=path) as server:
        asked = {"model": "policies", "max_tokens": 2, "messages": [{"role": "user", "content": "a question"}]}
        request = Request(
            f"{server.api}/chat/completions", json.dumps(asked).encode(), {"Content-Type": "application/json"}
        )
        with urlopen(request, timeout=60) as answer:
            assert json.load(answer)["choices"]
