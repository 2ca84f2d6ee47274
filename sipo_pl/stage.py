"""What a stage is: what runs it, what it reads, and what is said of it. The stages themselves are in `registry`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

EVALUATION_VERBS = ("validate", "test")  # of a stage whose verb is fit
Switches = Mapping[str, bool]  # key of the recipe's `stages` -> whether the stage is on
POLICIES = "the policies that a round starts from"  # the first alignments, later the re-alignments of the round before
COMPARED = "the policies of all compared methods"


@dataclass(frozen=True)
class Read:
    """One input of a stage.

    Args:
        what: name of a place, all of whose folders are read, or `POLICIES` or `COMPARED`
        when_on: only where that place is switched on
        option: option of the reader that says whether it is read, as `model.rewrites`
        off: value of that option at which it is not read; the graph sets it where the place is switched off
        instead: what is read in its stead at that value
        previous: of the round before; nothing in the first round
        every_round: of all rounds, by a stage of the run as a whole
        seen_by: graph, where the stage's own code adds what it reads there to the manifest; manifest, where the order
            of stages follows from another input
    """

    what: str
    when_on: bool = False
    option: str | None = None
    off: str = "false"
    instead: str | None = None
    previous: bool = False
    every_round: bool = False
    seen_by: Literal["both", "graph", "manifest"] = "both"

    def chosen(self, on: Switches) -> str | None:
        """Return what is read under these switches."""
        if on.get(self.what, True) or not (self.when_on or self.option):
            return self.what
        return self.instead

    def option_words(self, on: Switches) -> tuple[str, ...]:
        """Return the option that a command is given where the input is switched off."""
        return () if self.option is None or on.get(self.what, True) else (f"--{self.option}", self.off)


def always(on: Switches) -> bool:
    return True


def no_options(on: Switches, round: int) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True)
class Place:
    """Where a stage stands in the graph of a run.

    Args:
        name: its folder without the objective or point, which is the key of the recipe's `stages` as well
        reads: its inputs
        each_round: whether each round of self-improvement has its own
        has_work: gets the switches of the places before it; whether it has something to do
        options: gets the switches and the round; further options of its command
        report: what the run's page lacks without it; None for what the page does not read
    """

    name: str
    reads: tuple[Read, ...] = ()
    each_round: bool = False
    has_work: Callable[[Switches], bool] = always
    options: Callable[[Switches, int], tuple[str, ...]] = no_options
    report: str | None = None


@dataclass(frozen=True)
class Stage:
    """A stage: what runs it, what it reads, and what is said of it.

    Args:
        name: of its config file
        verb: fit, predict, or the stage's own name for a small command
        target: import path of its LightningModule, or `module:function` of a small command
        places: where it stands in the graph
        data: import path of its LightningDataModule
        help: line of a small command in the overview
        options: what the command of a trainer stage is given beside the config: objective, weights, policies
        named_for: the option that names its folder, as there is a stage for each of its values
        skips_brought: an objective whose adapter the recipe brings has none
        compared: stands in the graph of a comparison only, and has no switch
        off_by_default: runs only where the recipe switches it on
        default: the one that its verb runs where neither config nor option names a stage
        cost: import path of the function that estimates what it takes; None where that is seconds
        decodes: its rows are generated texts, whose tokens a method's cost counts
        rows: what the README of its folder says of the rows
        inspected: import path of the function that finds what `inspect` shows of it
        tells_recipe: its resolved config tells what the run's recipe was
        pairs: file of the pairs that a fit may train on
    """

    name: str
    verb: str
    target: str
    places: tuple[Place, ...]
    data: str = ""
    help: str = ""
    options: tuple[str, ...] = ()
    named_for: str | None = None
    skips_brought: bool = False
    compared: bool = False
    off_by_default: bool = False
    default: bool = False
    cost: str | None = None
    decodes: bool = False
    rows: str = ""
    inspected: str | None = None
    tells_recipe: bool = False
    pairs: str | None = None

    @property
    def is_small(self) -> bool:
        """Return whether it is a command of its own, which runs without the trainer."""
        return self.verb == self.name

    @property
    def verbs(self) -> tuple[str, ...]:
        """Return the commands that run it, the ordinary one first."""
        return (self.verb, *EVALUATION_VERBS) if self.verb == "fit" else (self.verb,)

    def folder_name(self, settings: Mapping[str, Any]) -> str:
        """Return the name of its folder, such as ``align-helpful``, ``evaluate-realign`` or ``raco-0.2,0.8``.

        Args:
            settings: values of its options.
        """
        return f"{self.name}-{settings[self.named_for]}" if self.named_for else self.name


@dataclass(frozen=True)
class Method:
    """A way to get from preferences to responses at a weight.

    Args:
        title: how tables and pictures call it
        kind: base answers with the base model; corners with one policy an objective, at the corners only; fused fuses
            those policies in decoding, or those of its own fits; soup and sum interpolate them in weight space, A and B
            apart or their product; weighted has a policy for each weight; single has one policy for all weights;
            realigned fuses SIPO's
        fit: stage of the fits that it needs beside the alignments
    """

    title: str
    kind: Literal["base", "corners", "fused", "soup", "sum", "weighted", "single", "realigned"]
    fit: str | None = None
