"""A stage of a run as a node of its graph, and which kinds of stages are on."""

from dataclasses import dataclass

from sipo_pl.recipe.recipe import Recipe, in_round, round_name
from sipo_pl.registry import PLACES, STAGES, SWITCHES


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
        return STAGES[self.config].verb

    @property
    def names(self) -> tuple[str, ...]:
        """Return what it is called on a command line: itself, all of its kind in the round, the round."""
        if self.round == 1:
            return (self.name, self.switch)
        return (self.name, in_round(self.switch, self.round), round_name(self.round))


def switches(recipe: Recipe) -> dict[str, bool]:
    """Return for each kind of stage whether it is on; one that would have nothing to do is off."""
    on = {name: recipe.runs(name) for name in SWITCHES}
    for name in SWITCHES:
        on[name] = on[name] and PLACES[name][1].has_work(on)
    return on
