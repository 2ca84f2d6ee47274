"""`sipo_pl run`: the graph of stages over their declared inputs, and nothing of their insides."""

import json
import logging
import os
import shlex
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sipo_pl import logs
from sipo_pl.artifacts import Manifest, content_hash, file_hash, input_hash, lock, read_json, write_json
from sipo_pl.cli import RESUMABLE
from sipo_pl.config_files import find_config, load_yaml
from sipo_pl.data.readers import source_hash
from sipo_pl.graph import build_graph, check_inputs, choose
from sipo_pl.overrides import Overrides, parse_recipe
from sipo_pl.recipe import Recipe
from sipo_pl.round_graph import Node, as_one, passes
from sipo_pl.stage_process import check_stages, run_stage
from sipo_pl.stopping import Stopping

log = logging.getLogger("sipo_pl")

CONFIG_SUFFIX = ".yaml"
REQUEST = "request.json"  # what `run` asked of a stage; lets it skip the stage without starting it


def run(
    config: list[str],
    only: list[str] | None = None,
    first: str | None = None,
    until: str | None = None,
    limit: int | None = None,
    set: list[str] | None = None,
    dry_run: bool = False,
    overwrite: bool = False,
    stop_after: str | None = None,
) -> int:
    """Run all stages of a recipe, in order, skipping what is complete.

    Args:
        config: the recipe, then overlays of the form {recipe: {...}, align: {...}}
        only: stages to run and no others; those of a later round are named round-2/sample, the whole of it round-2
        first: stage to begin at, the option --from
        until: last stage to run
        limit: smoke run on this many pairs or prompts of each split
        set: settings of stages or of the recipe, such as align.model.lora.r=8 or recipe.seed=3
        dry_run: print the plan with each stage's command, and run nothing
        overwrite: make the stages that are run anew, whatever their folders hold
        stop_after: stop at the first step, unit or stage that ends after this time, such as 3h50m

    Returns:
        The exit code: that of the stage that failed, or 0.
    """
    overrides = Overrides.gather(config[1:], set or [], limit)
    recipe_name = config[0]
    recipe = parse_recipe(recipe_name, overrides)
    graph = build_graph(recipe)
    nodes = choose(graph, only, first, until)
    check_inputs(nodes, graph, recipe)
    planned = [as_one(one) for one in passes(nodes, recipe)]
    if dry_run:
        for node in planned:
            print(f"# {node.name}\nsipo_pl {shlex.join(command(node, recipe_name, overrides))}")
        return 0
    run_dir = recipe.layout.run_dir
    with lock(run_dir):
        stopping = Stopping(run_dir)
        stopping.begin(stop_after)
        os.environ[logs.LOG_VARIABLE] = str(run_dir / "run.log")
        logs.log_to(run_dir / "run.log")
        return Runner(nodes, recipe, recipe_name, overrides, overwrite, stopping).run()


def command(node: Node, recipe_name: str, overrides: Overrides) -> list[str]:
    """Return the words of a stage's command, after the program's name."""
    config = str(Path(recipe_name).with_name(f"{node.config}.yaml"))
    return [node.verb, "--config", config, *node.options, *overrides.options(node.config)]


class Runner:
    """Runs the stages of a recipe that are not complete.

    Args:
        nodes: the stages, in order.
        recipe: the recipe.
        recipe_name: how the command line calls it.
        overrides: settings of the command line.
        overwrite: make all of them anew.
        stopping: what may ask to stop.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        recipe: Recipe,
        recipe_name: str,
        overrides: Overrides,
        overwrite: bool,
        stopping: Stopping,
    ) -> None:
        self.nodes, self.recipe, self.recipe_name, self.overrides = nodes, recipe, recipe_name, overrides
        self.overwrite, self.stopping = overwrite, stopping
        self.run_dir = recipe.layout.run_dir
        self.timings = Timings(self.run_dir / "timings.json")

    def run(self) -> int:
        """Return the exit code: that of the stage that failed or was stopped, or 0."""
        log.info("run %s: %d stages in %s", self.recipe.name, len(self.nodes), self.run_dir)
        waiting = [node for node in self.nodes if self._waits(node)]
        for node in self.nodes:
            if node not in waiting and (manifest := Manifest.read(self.run_dir / node.name)):
                again = f"`sipo_pl {shlex.join(self._command(node))} --overwrite`"
                manifest.check(self.run_dir / node.name, again)
        # one of each config is enough, and one of a later round, whose policies may stand on other base models
        planned = [as_one(one) for one in passes(waiting, self.recipe)]
        commands = {(node.config, node.round > 1): self._command(node) for node in reversed(planned)}
        if waiting and (code := check_stages(list(reversed(commands.values())))):
            log.error("nothing was run")
            return code
        for nodes in passes(self.nodes, self.recipe):
            if code := self._run_pass(nodes):
                return code
        _say_end(self.recipe)
        return 0

    def _run_pass(self, nodes: Sequence[Node]) -> int:
        """Run the stages that one command makes, as far as they are not complete; return the exit code."""
        left = [node for node in nodes if self._waits(node)]
        if left and (reason := self.stopping.reason):
            log.info("stopped by %s before %s; the same `run` goes on from here", reason, left[0].name)
            return RESUMABLE
        for node in nodes:
            said = "" if node in left else ": complete"
            log.info("[%d/%d] %s%s", self.nodes.index(node) + 1, len(self.nodes), node.name, said)
        if not left:
            return 0
        words, name = self._command(as_one(left)), as_one(left).name
        log.debug("sipo_pl %s", shlex.join(words))
        start = time.monotonic()
        code = run_stage([*words, *(["--overwrite"] if self.overwrite else [])])
        for node in left:
            self.timings.add(node.name, (time.monotonic() - start) / len(left))
        if code == RESUMABLE:
            log.info("stopped in %s; the same `run` goes on from here", name)
            return code
        if code != 0:
            if code == 128 + signal.SIGKILL:
                log.error("%s was killed from outside; a machine that is short of memory does so", name)
            log.error("%s ended with exit code %d; its command: sipo_pl %s", name, code, shlex.join(words))
            log.error("log: %s; the same `run` goes on from here", self.run_dir / "run.log")
            return code
        for node in left:
            # inputs are asked again: the stage may have been what made one of them complete
            write_json(self.run_dir / node.name / REQUEST, self._request(node))
        return 0

    def _command(self, node: Node) -> list[str]:
        return command(node, self.recipe_name, self.overrides)

    def _request(self, node: Node) -> dict[str, Any]:
        return _request(node, self._command(node), self.recipe, self.recipe_name)

    def _waits(self, node: Node) -> bool:
        return self.overwrite or not _is_complete(self.run_dir / node.name, self._request(node))


def _request(node: Node, words: list[str], recipe: Recipe, recipe_name: str) -> dict[str, Any]:
    """Return what decides whether a stage would do the same again: command, config texts, inputs."""
    config = find_config(words[words.index("--config") + 1])
    inputs = {}
    for name in node.inputs:
        manifest = Manifest.read(recipe.layout.run_dir / name)
        inputs[name] = manifest.result_hash if manifest and manifest.complete else None
    if node.config == "prepare":
        inputs |= {name: source_hash(source) for name, source in recipe.data.sources().items()}
    inputs |= {one.name: input_hash(Path(one.adapter), "") for one in recipe.objectives if one.adapter}
    shared = {key: value for key, value in load_yaml(find_config(recipe_name)).items() if key != "run_dir"}  # may move
    texts = {"config": load_yaml(config), "recipe": shared}
    options = words[words.index("--config") + 2 :]
    inputs |= {name: file_hash(Path(name)) for name in _files_named_in([texts, options])}
    return {"verb": words[0], "options": options, "texts": content_hash(texts), "inputs": inputs}


def _files_named_in(value: Any) -> set[str]:
    """Return the strings anywhere in a value that name a file, such as a prompt file."""
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return {name for one in inner for name in _files_named_in(one)}
    return {value} if isinstance(value, str) and not value.endswith(CONFIG_SUFFIX) and _is_file(value) else set()


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except OSError:  # too long for a name
        return False


def _is_complete(folder: Path, request: dict[str, Any]) -> bool:
    manifest = Manifest.read(folder)
    if manifest is None or not manifest.complete or not (folder / REQUEST).exists():
        return False
    return bool(read_json(folder / REQUEST) == json.loads(json.dumps(request)))


@dataclass
class Timings:
    """Seconds that each stage took, over all its starts.

    Args:
        path: the file that keeps them
    """

    path: Path
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path.exists():
            self.seconds = read_json(self.path)

    def add(self, stage: str, seconds: float) -> None:
        """Add to a stage's seconds and write the file."""
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + seconds, 2)
        write_json(self.path, self.seconds)


def _say_end(recipe: Recipe) -> None:
    folder = recipe.layout.stage("report")
    path = folder / "metrics.json"
    if not path.exists():
        return
    from rich.console import Console

    from sipo_pl.report.tables import summary_table

    console = Console()
    console.print(summary_table(read_json(path)))
    for name in ("report.html", "pareto.png", "metrics.json"):
        if (folder / name).exists():
            console.print(str(folder / name), highlight=False, soft_wrap=True)
