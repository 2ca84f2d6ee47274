"""A new stage takes the steps of CONTRIBUTING and no other: a copy of the package follows them, and runs."""

import re
from pathlib import Path

import pytest
import yaml
from contributing import add_module, add_stage, blocks, copy_package, run_in
from tiny_run import edit, write_recipe

from sipo_pl.storage.json_lines import read_jsonl
from sipo_pl.storage.manifest import Manifest

TITLE = "Add a stage"
OFF = ("review", "evaluate-align", "evaluate-realign", "report")  # for the time that they take


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a copy of the package that has the stage thin."""
    folder = copy_package(tmp_path_factory.mktemp("extended"))
    entry, read, _ = blocks(TITLE, "text")
    add_module(folder, TITLE)
    add_stage(folder, entry, before="realign")
    edit(
        folder / "sipo_pl/registry/stages.py",
        '(*_FUSED, Read("filter", seen_by="graph"))',
        f"(*_FUSED, {read.strip()})",
    )
    return folder


def test_a_stage_of_the_page_runs_in_both_rounds(extended: Path, tmp_path: Path, talkative_model: Path) -> None:
    recipe = write_recipe(tmp_path, talkative_model, rounds=2, stages=dict.fromkeys(OFF, False))
    (tmp_path / "thin.yaml").write_text(blocks(TITLE, "text")[2], encoding="utf-8")
    realign = yaml.safe_load((tmp_path / "realign.yaml").read_text(encoding="utf-8"))
    realign["data"]["source"] = "thin"
    (tmp_path / "realign.yaml").write_text(yaml.safe_dump(realign), encoding="utf-8")
    run_in(extended, "-m", "sipo_pl", "run", "--config", recipe)
    for folder in (tmp_path / "run", tmp_path / "run/round-2"):
        kept = read_jsonl(folder / "filter/kept.jsonl")
        assert read_jsonl(folder / "thin/kept.jsonl") == kept[::2]
        manifests = {name: Manifest.read(folder / name) for name in ("filter", "thin", "realign-kind")}
        assert all(manifest and manifest.complete for manifest in manifests.values())
        assert manifests["thin"].inputs == {"filter": manifests["filter"].result_hash}  # type: ignore[union-attr]
        assert manifests["realign-kind"].inputs["thin"] == manifests["thin"].result_hash  # type: ignore[union-attr]


def test_a_stage_of_the_page_has_a_command_a_switch_and_a_price(
    extended: Path, tmp_path: Path, talkative_model: Path
) -> None:
    recipe = write_recipe(tmp_path, talkative_model, stages={"thin": False})
    (tmp_path / "thin.yaml").write_text(blocks(TITLE, "text")[2], encoding="utf-8")
    program = f"""
from sipo_pl.cli.main import main
assert main(["--help"]) == 0
for more in (["--dry_run"], ["--dry_run", "--set", "recipe.stages.thin=true"], ["--estimate", "h200"]):
    assert main(["run", "--config", {str(recipe)!r}, *more]) == 0
"""
    said = run_in(extended, "-c", program)
    assert "\n  thin          keep every second kept pair\n" in said
    without, given = re.findall(r"# realign-kind\n(.*)\n", said)
    assert "--data.source filter" in without
    assert "--data.source" not in given
    assert said.count("sipo_pl thin --config") == 1
