"""A stage of a run as a node of its graph, and the nodes of a round of self-improvement."""

from dataclasses import dataclass

from sipo_pl.recipe.recipe import STAGES, Recipe, in_round, round_name
from sipo_pl.registry import TRAINER_STAGES

NEEDS = {  # a stage and the one without which it has nothing to do
    "measure-align": "evaluate-align",
    "evaluate-realign": "realign",
    "measure-realign": "evaluate-realign",
}


@dataclass(frozen=True)
class Node:
    """One stage of a run.

    Args:
        name: its folder within the run's, such as align-helpful or round-2/sample
        switch: key of the recipe's `stages` that turns it off
        config: file name of its config, without suffix
        options: options beside `--config`
        inputs: names of the nodes that it reads, also of those that are switched off
        round: its round of self-improvement; 1 for what belongs to the run as a whole
    """

    name: str
    switch: str
    config: str
    options: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    round: int = 1

    @property
    def verb(self) -> str:
        return TRAINER_STAGES[self.config].verb if self.config in TRAINER_STAGES else self.config

    @property
    def names(self) -> tuple[str, ...]:
        """Return what it is called on a command line: itself, all of its kind in the round, the round."""
        if self.round == 1:
            return (self.name, self.switch)
        return (self.name, in_round(self.switch, self.round), round_name(self.round))


def switches(recipe: Recipe) -> dict[str, bool]:
    """Return for each kind of stage whether it is on; one that would have nothing to do is off."""
    on = {name: recipe.runs(name) for name in STAGES}
    for name, needed in NEEDS.items():
        on[name] = on[name] and on[needed]
    used = on["combine"] or not on["filter"]  # a filter that reads the samples has no use for rewrites
    on["review"] = on["rewrite"] = on["review"] and on["rewrite"] and used
    on["report"] = on["report"] and (on["measure-align"] or on["measure-realign"])
    return on


def round_nodes(recipe: Recipe, on: dict[str, bool], number: int, start: tuple[str, ...]) -> list[Node]:
    """Return the stages of a round, which reads what the nodes `start` make, the policies that it starts from."""
    names = recipe.objective_names
    ground = tuple(name for name in start if name in ("prepare", "sft"))
    which = ("--recipe.round", str(number)) if number > 1 else ()
    before = (in_round("filter", number - 1),) if number > 1 else ()
    written = ("sample", "rewrite") if on["rewrite"] else ("sample",)

    def node(stage: str, *options: str, run: tuple[str, ...] = (), reads: tuple[str, ...]) -> Node:
        """Make the node of a stage that reads stages of the run and of its own round."""
        switch = "realign" if stage.startswith("realign-") else stage
        inputs = (*run, *(in_round(one, number) for one in reads))
        config = stage.partition("-")[0]
        return Node(in_round(stage, number), switch, config, (*options, *which), inputs, number)

    def unless(condition: bool, *options: str) -> tuple[str, ...]:
        return () if condition else options

    return [
        node("sample", run=start, reads=()),
        node("review", run=start, reads=("sample",)),
        node("rewrite", run=start, reads=("sample", "review")),
        node(
            "score",
            *unless(on["rewrite"], "--model.rewrites", "false"),
            run=(*start, *before),
            reads=written,
        ),
        node("combine", *unless(on["rewrite"], "--rewrites", "false"), reads=(*written, "score")),
        node(
            "filter",
            *unless(on["combine"], "--combined", "false"),
            run=("prepare", *before),
            reads=("combine" if on["combine"] else "sample", "score"),
        ),
        *(node(f"realign-{name}", "--objective", name, run=start, reads=("filter",)) for name in names),
        node(
            "evaluate-realign",
            *("--policies", "realign"),
            # the base model's answers do not change: the first evaluation has them
            *unless(number == 1 and not on["evaluate-align"], "--model.base", "false"),
            run=ground,
            reads=tuple(f"realign-{name}" for name in names),
        ),
        node("measure-realign", "--policies", "realign", run=ground, reads=("evaluate-realign",)),
    ]
