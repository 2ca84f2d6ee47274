"""All stages, one object each, and the methods of a comparison. Import paths are text, so that this is quick to import.

The graph of a run, the commands, `--estimate`, the folder cards, `inspect` and the recipe's switches are made of what
stands here; no other module lists stages.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sipo_pl.stage import COMPARED, POLICIES, Method, Place, Read, Stage, Switches, always

_PAIRS = "sipo_pl.data.datamodules.preference_data.PreferenceData"
_UNITS = "sipo_pl.data.datamodules.unit_data.UnitData"
_COST = "sipo_pl.run.estimate."
_ROWS = "sipo_pl.use.stage_rows."

_PREPARE = Read("prepare")
_GROUND = (_PREPARE, Read("sft", when_on=True))  # what every stage that runs a policy reads
_FUSED = (*_GROUND, Read(POLICIES, seen_by="graph"))
_KEPT_BEFORE = Read("filter", previous=True)


def _rewrites_are_used(on: Switches) -> bool:
    # a filter that reads the samples has no use for rewrites
    return on["review"] and on["rewrite"] and (on["combine"] or not on["filter"])


def _is_measured(on: Switches) -> bool:
    return on["measure-align"] or on["measure-realign"]


def _base_once(on: Switches, round: int) -> tuple[str, ...]:
    # the base model's answers do not change: the first evaluation has them
    return () if round == 1 and not on["evaluate-align"] else ("--model.base", "false")


def _stage(
    name: str,
    verb: str,
    target: str,
    reads: tuple[Read, ...] = (),
    *,
    each_round: bool = False,
    has_work: Callable[[Switches], bool] = always,
    report: str | None = None,
    **others: Any,
) -> Stage:
    """Return a stage that stands in one place, which has its name."""
    place = Place(name, reads, each_round=each_round, has_work=has_work, report=report)
    return Stage(name, verb, target, (place,), **others)


def _command(name: str, function: str, reads: tuple[Read, ...] = (), **others: Any) -> Stage:
    """Return a stage that is a command of its own."""
    return _stage(name, name, function, reads, **others)


def _fit_at(name: str, target: str, cost: str, reads: tuple[Read, ...] = _GROUND) -> Stage:
    """Return the stage of a method that trains one policy for each weight."""
    of = {"options": ("objective", "weights"), "named_for": "weights"}
    return _stage(name, "fit", target, reads, data=_PAIRS, compared=True, cost=cost, **of)


_OF_OBJECTIVE: dict[str, Any] = {"data": _PAIRS, "options": ("objective",), "named_for": "objective"}
_OF_POLICIES: dict[str, Any] = {"data": _UNITS, "options": ("policies",), "named_for": "policies"}

# The order of a run: a stage comes after what it reads and, among those that may come next, first in this list.
_STAGES = (
    _command(
        "prepare",
        "sipo_pl.stages.prepare:prepare",
        help="raw data into preference pairs and test prompts",
        rows="Preference pairs of each split, and the test prompts.",
        report="statistics of the data",
        pairs="train.jsonl",
    ),
    _stage(
        "reward_model",
        "fit",
        "sipo_pl.training.reward_model.RewardModel",
        (_PREPARE,),
        data="sipo_pl.data.datamodules.scored_data.ScoredData",
        off_by_default=True,
        cost=f"{_COST}fits.reward_model",
    ),
    _command(
        "calibrate",
        "sipo_pl.stages.calibrate:calibrate",
        (_PREPARE, Read("reward_model", when_on=True, seen_by="graph")),
        help="the units and the reference point that a comparison is measured with",
        compared=True,
    ),
    _stage(
        "sft",
        "fit",
        "sipo_pl.training.sft.SFT",
        (_PREPARE,),
        data="sipo_pl.data.datamodules.sft_data.SFTData",
        off_by_default=True,
        cost=f"{_COST}fits.sft",
        inspected=f"{_ROWS}sft",
    ),
    _stage(
        "align",
        "fit",
        "sipo_pl.training.dpo.DPOAlignment",
        _GROUND,
        **_OF_OBJECTIVE,
        skips_brought=True,
        default=True,
        cost=f"{_COST}fits.pairs",
        inspected=f"{_ROWS}align",
        tells_recipe=True,
    ),
    Stage(
        "evaluate",
        "predict",
        "sipo_pl.prediction.sample.Sample",
        (
            Place("evaluate-align", _FUSED, report="responses of the first alignment to test prompts"),
            Place(
                "evaluate-realign",
                (*_GROUND, Read("realign", seen_by="graph")),
                each_round=True,
                has_work=lambda on: on["realign"],
                options=_base_once,
                report="responses of the re-alignment to test prompts",
            ),
        ),
        **_OF_POLICIES,
        cost=f"{_COST}decoding.evaluate",
        rows="Answers to the test prompts, at each weight.",
        inspected=f"{_ROWS}evaluation_prompts",
        tells_recipe=True,
    ),
    Stage(
        "measure",
        "predict",
        "sipo_pl.prediction.measure.Measure",
        (
            Place(
                "measure-align",
                (*_GROUND, Read("evaluate-align")),
                has_work=lambda on: on["evaluate-align"],
                report="the front before re-alignment",
            ),
            Place(
                "measure-realign",
                (*_GROUND, Read("evaluate-realign")),
                each_round=True,
                has_work=lambda on: on["evaluate-realign"],
                report="the front after re-alignment, and the change",
            ),
        ),
        **_OF_POLICIES,
        cost=f"{_COST}scoring.measure",
        rows="Rewards of the answers to the test prompts.",
        tells_recipe=True,
    ),
    _stage(
        "align_long",
        "fit",
        "sipo_pl.training.dpo.DPOAlignment",
        _GROUND,
        **_OF_OBJECTIVE,
        compared=True,
        cost=f"{_COST}fits.pairs",
    ),
    _fit_at("modpo", "sipo_pl.training.weighted.WeightedAlignment", f"{_COST}fits.pairs", _FUSED),
    _fit_at("dpo_lw", "sipo_pl.training.weighted.WeightedAlignment", f"{_COST}fits.pairs"),
    _stage(
        "consistency",
        "fit",
        "sipo_pl.training.dpo.DPOAlignment",
        _GROUND,
        data=_PAIRS,
        options=("objective",),
        compared=True,
        cost=f"{_COST}fits.pairs",
    ),
    _fit_at("raco", "sipo_pl.training.raco.RACOAlignment", f"{_COST}fits.raco"),
    _stage(
        "sample",
        "predict",
        "sipo_pl.prediction.sample.Sample",
        _FUSED,
        data=_UNITS,
        each_round=True,
        default=True,
        cost=f"{_COST}decoding.sample",
        decodes=True,
        rows="Responses of the fused policies to conflicting prompts, at each weight.",
        inspected=f"{_ROWS}conflicting_prompts",
        report="sampled responses",
        tells_recipe=True,
    ),
    _stage(
        "review",
        "predict",
        "sipo_pl.prediction.review.Review",
        (*_FUSED, Read("sample")),
        data=_UNITS,
        each_round=True,
        has_work=_rewrites_are_used,
        cost=f"{_COST}decoding.review",
        decodes=True,
        rows="Reviews of the sampled responses.",
        inspected=f"{_ROWS}review",
        report="reviews",
    ),
    _stage(
        "rewrite",
        "predict",
        "sipo_pl.prediction.rewrite.Rewrite",
        (*_FUSED, Read("sample"), Read("review")),
        data=_UNITS,
        each_round=True,
        has_work=_rewrites_are_used,
        cost=f"{_COST}decoding.rewrite",
        decodes=True,
        rows="The sampled responses, rewritten after their reviews.",
        inspected=f"{_ROWS}rewrite",
        report="rewrites",
    ),
    _stage(
        "score",
        "predict",
        "sipo_pl.prediction.score.Score",
        (*_FUSED, _KEPT_BEFORE, Read("sample"), Read("rewrite", option="model.rewrites")),
        data=_UNITS,
        each_round=True,
        cost=f"{_COST}scoring.score",
        rows="Implicit rewards of every text under every reward model.",
        inspected=f"{_ROWS}score",
        report="implicit rewards of the responses",
    ),
    _command(
        "combine",
        "sipo_pl.stages.combine:combine",
        (Read("sample"), Read("rewrite", option="rewrites"), Read("score")),
        each_round=True,
        help="choose between each sampled response and its rewrite",
        rows="The better of each response and its rewrite.",
        report="the choice between a response and its rewrite",
    ),
    _command(
        "filter",
        "sipo_pl.stages.filter:filter",
        (_PREPARE, _KEPT_BEFORE, Read("combine", option="combined", instead="sample"), Read("score")),
        each_round=True,
        help="keep the responses that beat both originals under every reward",
        rows="Conflicting pairs with the response that was kept for them.",
        inspected=f"{_ROWS}filter",
        report="yields of the filter and kept responses",
        pairs="kept.jsonl",
    ),
    _stage(
        "realign",
        "fit",
        "sipo_pl.training.realign.Realignment",
        (*_FUSED, Read("filter", seen_by="graph")),
        **_OF_OBJECTIVE,
        each_round=True,
        cost=f"{_COST}fits.kept",
        inspected=f"{_ROWS}realign",
        tells_recipe=True,
    ),
    _command(
        "report",
        "sipo_pl.stages.report:report",
        (
            Read("prepare", seen_by="graph"),
            Read("measure-align", when_on=True, seen_by="graph"),
            Read("measure-realign", when_on=True, every_round=True, seen_by="graph"),
        ),
        has_work=_is_measured,
        help="fronts, tables and samples as one page",
    ),
    _stage(
        "answer",
        "predict",
        "sipo_pl.prediction.answer.Answer",
        (*_GROUND, Read(COMPARED, seen_by="graph")),
        data=_UNITS,
        compared=True,
        cost=f"{_COST}decoding.answer",
    ),
    _stage(
        "judge",
        "predict",
        "sipo_pl.prediction.judge.Judge",
        (_PREPARE, Read("calibrate", seen_by="graph"), Read("answer"), Read("sft", when_on=True, seen_by="manifest")),
        data=_UNITS,
        compared=True,
        cost=f"{_COST}scoring.judge",
    ),
    _command(
        "compare",
        "sipo_pl.stages.compare:compare",
        (_PREPARE, Read("calibrate"), Read("answer"), Read("judge")),
        help="all compared methods as tables and pictures",
        compared=True,
    ),
)
STAGES: Mapping[str, Stage] = {stage.name: stage for stage in _STAGES}


def _in_order(stages: Sequence[Stage]) -> dict[str, tuple[Stage, Place]]:
    """Return all places by name, each after what it reads and, among those, in the order of the stages."""
    waiting = [(stage, place) for stage in stages for place in stage.places]
    fits = tuple(place.name for stage, place in waiting if stage.verb == "fit")
    stands_for = {POLICIES: ("align",), COMPARED: fits}
    found: dict[str, tuple[Stage, Place]] = {}
    while waiting:
        names = {place.name for _, place in waiting}
        for one in waiting:
            above = {name for r in one[1].reads if not r.previous for name in stands_for.get(r.what, (r.what,))}
            if not above & names:
                break
        else:
            raise ValueError(f"stages read each other: {', '.join(sorted(names))}")
        waiting.remove(one)
        found[one[1].name] = one
    return found


PLACES = _in_order(tuple(STAGES.values()))  # name -> its stage and itself, in the order of a run
SWITCHES = tuple(name for name, (stage, _) in PLACES.items() if not stage.compared)  # keys of the recipe's `stages`
TRAINER_STAGES = {name: stage for name, stage in STAGES.items() if not stage.is_small}
SMALL_STAGES = tuple(name for name, stage in STAGES.items() if stage.is_small)
_PREDICTED = [name for name, stage in STAGES.items() if stage.verb == "predict" and not stage.compared]
VERBS = {  # of the trainer, with their lines in the overview
    "fit": "align or re-align one policy, or fine-tune the base: --config <recipe>/align.yaml --objective NAME",
    "validate": "validation metrics of a fitted policy",
    "test": "the same under the names test/...",
    "predict": f"{', '.join(_PREDICTED[:-1])} or {_PREDICTED[-1]}: --config <recipe>/sample.yaml",
}
DEFAULT_STAGE = {verb: name for name, stage in STAGES.items() if stage.default for verb in stage.verbs}


def place_of(folder: str) -> Place | None:
    """Return the place of a stage's folder, such as realign-helpful, sample or evaluate-align; None for another."""
    found = PLACES.get(folder) or PLACES.get(folder.partition("-")[0])
    return found[1] if found else None


def verbs_of(stage: str) -> tuple[str, ...]:
    """Return the commands that run a stage, the ordinary one first."""
    return STAGES[stage].verbs


def command_of(stage: str, objective: str | None = None, round: int = 1) -> str:
    """Return the command that makes a stage's folder.

    Args:
        stage: name of the folder without the objective, such as align, sample or evaluate-align.
        objective: whose folder, of a stage that each objective has.
        round: of which round.
    """
    config, _, policies = stage.partition("-")
    words = ["sipo_pl", verbs_of(config)[0], "--config", f"{config}.yaml"]
    words += ["--objective", objective] if objective else []
    words += ["--policies", policies] if policies else []
    words += ["--recipe.round", str(round)] if round > 1 else []
    return " ".join(words)


METHODS = {
    "sft": Method("SFT", "base"),
    "dpo": Method("DPO per objective", "corners"),
    "soup": Method("Soup of A and B", "soup"),
    "soup_exact": Method("Soup, exact", "sum"),
    "mod": Method("MOD", "fused"),
    "mod_long": Method("MOD, trained longer", "fused", "align_long"),
    "modpo": Method("MODPO", "weighted", "modpo"),
    "dpo_lw": Method("DPO-LW", "weighted", "dpo_lw"),
    "consistency": Method("Reward Consistency", "single", "consistency"),
    "raco": Method("RACO", "weighted", "raco"),
    "sipo": Method("SIPO", "realigned"),
}
