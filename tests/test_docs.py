"""The documents tell the truth: commands parse, links lead somewhere, rows and keys are those of the code."""

import importlib
import inspect
import json
import re
import shlex
import shutil
import sys
import textwrap
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import NotRequired, get_origin, get_type_hints

import pytest
import torch
import yaml

import sipo_pl.data.rows as rows
from sipo_pl.cli import main as cli
from sipo_pl.method.divergences import ReverseKL
from sipo_pl.method.losses import LossContext, PairLogps
from sipo_pl.method.weights import WeightPlan
from sipo_pl.recipe.components import import_class
from sipo_pl.recipe.config.overrides import Overrides, parse_recipe
from sipo_pl.recipe.data import Mixture
from sipo_pl.recipe.recipe import Data, Objective, Recipe, Template
from sipo_pl.registry import SMALL_STAGES, SWITCHES, TRAINER_STAGES
from sipo_pl.rewards.base import Reward
from sipo_pl.text.marks import MarkRules
from sipo_pl.text.prompt import TextRow
from tools import configuration_page

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)(?P<path>[^)#]+)(?:#[^)]*)?\)")
NOT_YET = ("sipo_pl thin", "sipo_pl fit --config my_recipe/align_ipo.yaml")  # stages that CONTRIBUTING shows how to add


def blocks(document: Path, language: str) -> list[str]:
    found = [match for match in FENCE.finditer(document.read_text(encoding="utf-8")) if match["language"] == language]
    return [textwrap.dedent(match["text"]) for match in found]


def commands() -> list[str]:
    """Return the command lines of indented and fenced code, of YAML headers and of tables, each once."""
    found = []
    for document in DOCUMENTS:
        for line in document.read_text(encoding="utf-8").splitlines():
            match = re.match(r"^(?: {4,}|(?: *)(?:#|(?:\S+\.yaml:))? ?(?:\S+\.yaml: )?)(sipo_pl [a-z]+ .*)$", line)
            if match and "…" not in line:
                found.append(re.sub(r"\s+# .*", "", match[1]).strip())
            if line.startswith("|"):
                found += re.findall(r"`(sipo_pl \w+ --[^`]*)`", line)
    return [line for line in dict.fromkeys(found) if not line.startswith(NOT_YET)]


def recipes() -> list[tuple[str, str]]:
    found = [(document.name, text) for document in DOCUMENTS for text in blocks(document, "yaml")]
    return [(name, text) for name, text in found if {"objectives", "data"} <= set(yaml.safe_load(text))]


def lay_out(folder: Path, recipe: str) -> None:
    """Make the folder that the documents speak of: a copy of `own_data` with a recipe of its own, and data."""
    shutil.copytree(ROOT / "configs" / "own_data", folder / "my_recipe")
    (folder / "my_recipe" / "recipe.yaml").write_text(recipe, encoding="utf-8")
    for split in ("train", "validation"):
        (folder / "my_recipe" / "data" / f"{split}.jsonl").write_text("{}\n", encoding="utf-8")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    lay_out(tmp_path, recipes()[0][1])
    for document in DOCUMENTS:
        for text in blocks(document, "yaml"):
            if match := re.match(r"# (\w+\.yaml)\b", text):
                (tmp_path / match[1]).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(line: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Check a command without running it; return its exit code."""
    words = shlex.split(line)[1:]
    if words[0] == "run":
        return cli.main([*words, *([] if "--dry_run" in words else ["--dry_run"])])
    monkeypatch.setattr(sys, "argv", ["sipo_pl", *words])
    try:
        return cli.check()
    except SystemExit as end:  # --help and --print_config end the program
        return int(end.code or 0)


def test_there_are_commands() -> None:
    found = commands()
    assert len(found) > 25
    assert {line.split()[1] for line in found} >= {"run", "fit", "predict", "validate", *SMALL_STAGES}


def test_every_command_parses(desk: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    wrong = {line: capfd.readouterr().err for line in commands() if check(line, monkeypatch) != 0}
    assert not wrong


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """The modules that CONTRIBUTING writes, importable under their names."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    modules = {}
    step = r"^1\. [^`]*`(sipo_pl/[\w/]+)\.py`(?:(?!```).)*```python\n(.*?)^ *```$"
    for match in re.finditer(step, text, re.DOTALL | re.MULTILINE):
        module = ModuleType(match[1].replace("/", "."))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(textwrap.dedent(match[2]), module.__name__, "exec"), vars(module))
        modules[module.__name__.rpartition(".")[2]] = module
    assert set(modules) == {"ipo", "ranked", "questions", "chi_squared", "thin"}
    return modules


@pytest.mark.parametrize(("document", "text"), recipes())
def test_every_recipe_is_one(
    document: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: dict[str, ModuleType]
) -> None:
    lay_out(tmp_path, text)
    monkeypatch.chdir(tmp_path)
    recipe = parse_recipe("my_recipe/recipe.yaml", Overrides(()))
    assert recipe.sample_weights.resolve(recipe.objective_names)
    # a dry run checks the stages in a process of its own, which does not have the classes that the page adds
    is_added = any(f".{name}." in text for name in written)
    assert cli.main(["run", "--config", "my_recipe/recipe.yaml", "--dry_run"]) == (2 if is_added else 0)


def test_every_yaml_block_is_yaml_and_names_only_what_there_is() -> None:
    for document in DOCUMENTS:
        for text in blocks(document, "yaml"):
            value = yaml.safe_load(text)
            known = {*TRAINER_STAGES, *SMALL_STAGES, "recipe"}
            if set(value) <= known:  # an overlay
                assert value
            elif "stage" in value:
                assert value["stage"] in known


@pytest.mark.usefixtures("written")
def test_the_loss_of_contributing_is_injected(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = next(text for text in blocks(ROOT / "CONTRIBUTING.md", "yaml") if "losses.ipo" in text)
    (desk / "my_recipe" / "align.yaml").write_text(text, encoding="utf-8")
    assert check(re.match(r"# (sipo_pl .*)", text)[1], monkeypatch) == 0  # type: ignore[index]


def test_the_examples_of_contributing_work(written: dict[str, ModuleType]) -> None:
    logps = PairLogps(*(torch.tensor([value]) for value in (-1.0, -4.0, -2.0, -3.0)), torch.tensor([5]))
    output = written["ipo"].IPO()(logps, LossContext(0.1, ReverseKL(), ("a", "b"), 0))
    assert output.losses.item() == pytest.approx((2 - 5) ** 2)  # (0.2 - 0.5) / 0.1, squared

    scores = torch.tensor([0.25, 0.75]).log()[:, None, None]
    chi_squared = written["chi_squared"].ChiSquared()
    assert chi_squared.fuse(scores, torch.tensor([[0.5, 0.5]]), None).exp().item() == pytest.approx(0.5)
    assert chi_squared.reward(torch.tensor(2.0).log(), 0.1).item() == pytest.approx(0.2)

    raw = {"prompt": "x", "responses": ["a", "b"], "better": [2, 1], "safer": [1, 1]}
    found = written["ranked"].Ranked().pairs([("f:1", raw)], [Objective("better"), Objective("safer")])
    assert found.rows[0]["preferred"] == {"better": 1, "safer": -1}
    assert set(found.rows[0]) == set(get_type_hints(rows.PairRow)) - {"scores"}

    asked = [TextRow("x", "Why? When? Who?"), TextRow("x", "So.")]
    assert written["questions"].Questions(most=2).score(asked) == [2.0, 0.0]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_relative_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"<!--.*?-->", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    missing = [match["path"] for match in LINK.finditer(text) if not (document.parent / match["path"]).exists()]
    assert not missing


def test_the_map_of_contributing_shows_the_rooms() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| (`[^|]*`) \|", text, re.MULTILINE)
    shown = {name.rstrip("/") for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
    rooms = [
        path for path in (ROOT / "sipo_pl").iterdir() if (path / "__init__.py").is_file() and not path.is_symlink()
    ]
    assert {path.name for path in rooms} <= shown
    assert all((ROOT / "sipo_pl" / name).is_dir() or (ROOT / name).is_dir() for name in shown)


def test_rows_are_those_of_the_code() -> None:
    text = (ROOT / "docs" / "data_formats.md").read_text(encoding="utf-8")
    shown = re.findall(r"<!-- row: (\w+) -->\n```json\n(.*?)```", text, flags=re.DOTALL)
    assert {name for name, _ in shown} == {name for name in vars(rows) if name.endswith("Row")}
    for name, row in shown:
        hints = get_type_hints(getattr(rows, name), include_extras=True)
        optional = {key for key, hint in hints.items() if get_origin(hint) is NotRequired}
        keys = set(json.loads(row))
        assert set(hints) - optional <= keys <= set(hints), name


def shipped_rewards() -> list[type[Reward]]:
    names = {file.stem for file in (ROOT / "sipo_pl" / "rewards").glob("*.py")} - {"__init__"}
    modules = [importlib.import_module(f"sipo_pl.rewards.{name}") for name in sorted(names)]
    found = [
        one for module in modules for one in vars(module).values() if isinstance(one, type) and issubclass(one, Reward)
    ]
    return [one for one in dict.fromkeys(found) if not inspect.isabstract(one)]


def test_every_shipped_reward_is_described() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    for reward in shipped_rewards():
        path = f"{reward.__module__.removeprefix('sipo_pl.rewards.')}.{reward.__name__}"
        assert f"`{path}`" in text, path


def test_every_key_is_described() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    first_cells = re.findall(r"^\| (?:\w+ \| )?(`.*?`) \|", text, re.MULTILINE)
    described = {part for cell in first_cells for word in re.findall(r"`([\w.]+)`", cell) for part in word.split(".")}
    settings = import_class("sipo_pl.training.lora_fit.LoRASettings")
    classes = [Recipe, Objective, Data, Mixture, Template, WeightPlan, MarkRules, settings]
    classes += [
        import_class("sipo_pl.engine.decoding.options.Decoding"),
        import_class("sipo_pl.recipe.saving.Saving"),
    ]
    keys = {one.name for kind in classes for one in fields(kind)}
    for stage in TRAINER_STAGES.values():
        for path in (stage.target, stage.data):
            own = [kind for kind in import_class(path).__mro__ if kind.__module__.startswith("sipo_pl")]
            keys |= {key for kind in own for key in get_type_hints(kind.__init__)} - {"return", "args", "kwargs"}
    for reward in shipped_rewards():
        keys |= set(get_type_hints(reward.__init__)) - {"return"}
    for name in SMALL_STAGES:
        keys |= set(get_type_hints(import_class(f"sipo_pl.stages.{name}.{name}"))) - {"return", "overwrite"}
    assert keys - described - {"recipe"} == set()
    assert all(stage in text for stage in {name.partition("-")[0] for name in SWITCHES})


def test_the_tables_of_the_configuration_are_those_of_the_typed_fields(capsys: pytest.CaptureFixture[str]) -> None:
    assert configuration_page.main(["--check"]) == 0, capsys.readouterr().err


def test_the_notebook_was_executed_without_errors_and_names_no_machine() -> None:
    path = ROOT / "docs" / "own_objectives.ipynb"
    text = path.read_text(encoding="utf-8")
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert "error" not in {output["output_type"] for output in outputs}
    assert any("image/png" in output.get("data", {}) for output in outputs)  # the fronts
    assert not re.search(r"/(?:tmp|home|root|Users|opt|work)/", text)
    source = "\n".join("".join(cell["source"]) for cell in cells)
    compile(re.sub(r"^(\s*)!.*$", r"\1pass", source, flags=re.MULTILINE), str(path), "exec")
    for words in re.findall(r"^!sipo_pl (\w+)", source, re.MULTILINE):
        assert words in cli.COMMANDS
