"""`sipo_pl run`: the graph of stages over their declared inputs, and nothing of their insides."""

import logging
import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sipo_pl.engine.models.made_over import ModelsNow
from sipo_pl.messages import logs
from sipo_pl.messages.exit_codes import DONE, RESUMABLE
from sipo_pl.recipe.config.overrides import Overrides, parse_recipe
from sipo_pl.recipe.config.resolve import config_options, resolve
from sipo_pl.recipe.graph.node import Node
from sipo_pl.recipe.graph.run import build_graph, check_inputs, choose
from sipo_pl.recipe.recipe import Recipe
from sipo_pl.run.devices import lane_environments, next_stage, visible_gpus
from sipo_pl.run.stage_check import Outlook
from sipo_pl.run.stage_process import Question, StageProcess, handing_on, look_ahead
from sipo_pl.storage.json_lines import read_json
from sipo_pl.storage.lock import lock
from sipo_pl.storage.manifest import Manifest
from sipo_pl.storage.stopping import Stopping
from sipo_pl.storage.timings import Timings

log = logging.getLogger("sipo_pl")

LOOK = 0.02  # seconds between two looks at the stages that run


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
    side_by_side: int = 1,
    estimate: str | None = None,
) -> int:
    """Run all stages of a recipe, in order, skipping what is complete.

    Args:
        config: the recipe, then overlays of the form {recipe: {...}, align: {...}}
        only: stages to run and no others; those of a later round are named round-2/sample, the whole of it round-2
        first: stage to begin at, the option --from
        until: last stage to run
        limit: smoke run on this many pairs or prompts of each split
        set: settings of stages or of the recipe, such as align.model.lora.r=8 or recipe.seed=3
        dry_run: print each stage's command, check its settings, and run nothing
        overwrite: make the stages that are run anew, whatever their folders hold
        stop_after: stop at the first step, unit or stage that ends after this time, such as 3h50m
        side_by_side: so many fits at once, where none needs another one, each on an equal share of the GPUs
        estimate: print what each stage will take, and run nothing: on the device that is here, or on one of rates.yaml,
            such as h200

    Returns:
        The exit code: that of the stage that failed, or 0.
    """
    overrides = Overrides.gather(config[1:], set or [], limit)
    recipe_name = config[0]
    recipe = parse_recipe(recipe_name, overrides)
    graph = build_graph(recipe)
    nodes = choose(graph, only, first, until)
    check_inputs(nodes, graph, recipe)
    planned = [(node, command(node, recipe_name, overrides)) for node in nodes]
    if dry_run:
        for node, words in planned:
            print(f"# {node.name}\nsipo_pl {shlex.join(words)}")
        return _check(planned)
    if estimate is not None:
        if code := _check(planned):
            return code
        from sipo_pl.run.estimate.plan import estimate as table

        found = {}
        for node in graph:  # also those that are not asked for: others work on what they make
            verb, *words = command(node, recipe_name, overrides)
            found[node.name] = resolve(verb, words).plain()
        print(table(recipe, estimate, nodes, found, len(visible_gpus())))
        return 0
    run_dir = recipe.layout.run_dir
    lanes = lane_environments(side_by_side, visible_gpus() if side_by_side > 1 else [])
    with lock(run_dir):
        stopping = Stopping(run_dir)
        stopping.begin(stop_after)
        os.environ[logs.LOG_VARIABLE] = str(run_dir / "run.log")
        logs.log_to(run_dir / "run.log")
        return Runner(nodes, recipe, recipe_name, overrides, overwrite, stopping, lanes).run()


def command(node: Node, recipe_name: str, overrides: Overrides) -> list[str]:
    """Return the words of a stage's command, after the program's name."""
    return [node.verb, *config_options(node.config, recipe_name), *node.options, *overrides.options(node.config)]


def _check(planned: Sequence[tuple[Node, list[str]]]) -> int:
    """Check the stages' commands as a run does before it starts the first; return the exit code."""
    sys.stdout.flush()  # the plan stands above what is said of it
    return look_ahead([_question(node, words, made=False) for node, words in planned])[0]


def _question(node: Node, words: Sequence[str], *, made: bool) -> Question:
    # one of each config is enough, and one of a later round, whose policies may stand on other base models
    return Question(words, (node.config, node.round > 1), made)


@dataclass(frozen=True)
class Running:
    """A stage under way.

    Args:
        node: the stage
        words: its command, after the program's name
        process: its process
        lane: index of the devices that it has
        since: when it began
    """

    node: Node
    words: list[str]
    process: StageProcess
    lane: int
    since: float


class Runner:
    """Runs the stages of a recipe that are not complete.

    Args:
        nodes: the stages, in order.
        recipe: the recipe.
        recipe_name: how the command line calls it.
        overrides: settings of the command line.
        overwrite: make all of them anew.
        stopping: what may ask to stop.
        lanes: variables of each fit that may run beside the others.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        recipe: Recipe,
        recipe_name: str,
        overrides: Overrides,
        overwrite: bool,
        stopping: Stopping,
        lanes: Sequence[dict[str, str]],
    ) -> None:
        self.nodes, self.recipe, self.recipe_name, self.overrides = nodes, recipe, recipe_name, overrides
        self.overwrite, self.stopping, self.lanes = overwrite, stopping, lanes
        self.run_dir = recipe.layout.run_dir
        self.timings = Timings(self.run_dir)
        self.outlooks: dict[str, Outlook] = {}
        self.ran: set[str] = set()

    def run(self) -> int:
        """Return the exit code: that of the stage that failed or was stopped, or 0."""
        log.info("run %s: %d stages in %s", self.recipe.name, len(self.nodes), self.run_dir)
        there = [] if self.overwrite else [(node.name, Manifest.read(self.run_dir / node.name)) for node in self.nodes]
        made = {name: manifest for name, manifest in there if manifest and manifest.complete}
        questions = [_question(node, self._command(node), made=node.name in made) for node in self.nodes]
        code, found = look_ahead(questions)
        if code:
            log.error("nothing was run")
            return code
        self.outlooks = {node.name: outlook for node, outlook in zip(self.nodes, found, strict=True)}
        models = ModelsNow(self.recipe)
        for node in self.nodes:
            if manifest := made.get(node.name):
                again = f"`sipo_pl {shlex.join(self._command(node))} --overwrite`"
                if self.outlooks[node.name].complete:
                    manifest.check(self.run_dir / node.name, again, quick=True)
                models.check(self.run_dir / node.name, manifest, again)
        code = self._run_stages(list(self.nodes))
        if code == DONE:
            _say_end(self.recipe)
        return code

    def _run_stages(self, waiting: list[Node]) -> int:
        """Run all stages, as many at once as there are lanes; the first that fails ends the others resumably."""
        running: list[Running] = []
        code = DONE

        def ask(number: int) -> None:
            for one in running:
                one.process.send(number)

        with handing_on(ask) as handed:
            while True:
                while code == DONE and len(running) < len(self.lanes):
                    index = next_stage(waiting, [one.node for one in running])
                    if index is None:
                        break
                    node = waiting.pop(index)
                    if not self._announce(node):
                        continue
                    reason = signal.Signals(handed[-1]).name if handed else self.stopping.reason
                    if reason:
                        log.info("stopped by %s before %s; the same `run` goes on from here", reason, node.name)
                        code = RESUMABLE
                        break
                    running.append(self._start(node, min(self._free_lanes(running))))
                    if handed:  # while it began
                        ask(handed[-1])
                if not running:
                    return code
                time.sleep(LOOK)
                for one in [one for one in running if one.process.code is not None]:
                    running.remove(one)
                    if found := self._end(one):
                        code = found if code in (DONE, RESUMABLE) else code
                        ask(signal.SIGTERM)

    def _free_lanes(self, running: Sequence[Running]) -> set[int]:
        return set(range(len(self.lanes))) - {one.lane for one in running}

    def _announce(self, node: Node) -> bool:
        """Say which stage comes next; return whether it is to be run, as it is not complete."""
        # where an input was made since, the stage itself finds out
        waits = not self.outlooks[node.name].complete or not self.ran.isdisjoint(node.inputs)
        said = "" if waits else ": complete"
        log.info("[%d/%d] %s%s", self.nodes.index(node) + 1, len(self.nodes), node.name, said)
        return waits

    def _start(self, node: Node, lane: int) -> Running:
        words = self._command(node)
        log.debug("sipo_pl %s", shlex.join(words))
        beside = len(self.lanes) > 1 and node.verb == "fit"
        environment = {**self.lanes[lane], logs.LABEL_VARIABLE: node.name} if beside else {}
        again = ["--overwrite"] if self.overwrite else []
        self.ran.add(node.name)
        forks = self.outlooks[node.name].forks
        process = StageProcess([*words, *again], forks=forks, environment=environment)
        return Running(node, words, process, lane, time.monotonic())

    def _end(self, one: Running) -> int:
        """Note what became of a stage; return its exit code."""
        code, name = one.process.code, one.node.name
        assert code is not None
        self.timings.add(name, time.monotonic() - one.since)
        if code == RESUMABLE:
            log.info("stopped in %s; the same `run` goes on from here", name)
            return code
        if code != DONE:
            if code == 128 + signal.SIGKILL:
                log.error("%s was killed from outside; a machine that is short of memory does so", name)
            log.error("%s ended with exit code %d; its command: sipo_pl %s", name, code, shlex.join(one.words))
            log.error("log: %s; the same `run` goes on from here", self.run_dir / "run.log")
            return code
        return DONE

    def _command(self, node: Node) -> list[str]:
        return command(node, self.recipe_name, self.overrides)


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
