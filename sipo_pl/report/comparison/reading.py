"""The numbers of a comparison in words and in tables for reading: header and rows of texts."""

from collections.abc import Mapping, Sequence
from typing import Any

from sipo_pl.method.weights import corners, point_name
from sipo_pl.metrics.intervals import FEWEST, told
from sipo_pl.recipe.methods import CONTROL
from sipo_pl.report.plain_tables import latex_table, markdown_table, markdown_text
from sipo_pl.report.tables import RunMetrics, decimals_of, number, too_few, unbroken, with_interval

TextTable = tuple[list[str], list[list[str]]]

NONE = "–"
RESULT_TITLES = {
    "hypervolume": "hypervolume",
    "hypervolume_gain": "gain over {against}",
    "igd_plus": "IGD+",
    "mip": "MIP",
    "kendall_tau": "Kendall tau",
    "union_share": "share of the union front",
    "spread": "spread",
}
BESIDE_TITLES = {
    "words": ("words", 1),
    "kl": ("KL, nats", 2),
    "finished": ("finished", 2),
    "collapsed": ("collapsed", 2),
}
COST_TITLES = {
    "trained_tokens": "trained tokens",
    "backward_passes": "backward passes",
    "generated_tokens": "generated tokens",
    "policies_per_token": "policies a token",
}
STRENGTH_TITLES = {"trained_tokens": "training tokens", "kl": "KL from the base model"}
MUCH_MORE = 1.2  # ratio from which a difference in training is named
RESULTS_NOTE = (
    "In brackets {level:.0%} intervals over {prompts} test prompts; one draw of prompts serves all methods. "
    "They speak of other prompts, not of another training seed. Larger is better, but for IGD+, where 0 is best. "
    "Kendall tau and spread are of methods that answer differently at each weight."
)


def headline(metrics: RunMetrics) -> str:
    """Return the result in words that claim no more than the intervals allow."""
    methods = metrics["methods"]
    against = _title(metrics, metrics["against"])
    best = max(methods, key=lambda method: method["hypervolume"]["estimate"])
    if best["hypervolume"]["estimate"] == 0:
        return "No method's front rises above the reference point, so the hypervolume tells nothing here."
    if metrics["prompts"] < FEWEST:
        first = f"Largest hypervolume: {with_interval(best['hypervolume'])}, that of {best['title']}"
        return f"{first}, but {too_few(metrics)} to tell methods apart."
    others = [method for method in methods if method["method"] != metrics["against"]]
    better, worse = (
        [one["title"] for one in others if told(one["hypervolume_gain"], metrics["prompts"]) == sign]
        for sign in (1, -1)
    )
    unknown = len(others) - len(better) - len(worse)
    parts = [f"Largest hypervolume: {with_interval(best['hypervolume'])}, that of {best['title']}."]
    if better:
        parts.append(f"Beyond the interval it is larger than that of {against} for {'; '.join(better)}.")
    if worse:
        parts.append(f"Beyond the interval it is smaller for {'; '.join(worse)}.")
    if unknown:
        parts.append(f"For {unknown} of {len(others)} methods these prompts do not tell it from that of {against}.")
    return " ".join(parts)


def control(metrics: RunMetrics) -> str:
    """Return the positive control in words: whether each objective's own policy beats the base model on it."""
    names = metrics["objectives"]
    own = {point_name(corner): name for name, corner in zip(names, corners(len(names)), strict=True)}
    gains = {
        own[entry["point"]]: entry["gain"][own[entry["point"]]]
        for entry in metrics["points"]
        if entry["point"] in own and entry["method"] == CONTROL
    }
    if not gains:
        return ""
    words = [f"{name} {with_interval(one, _decimals(metrics, name), sign=True)}" for name, one in gains.items()]
    failed = [name for name, one in gains.items() if told(one, metrics["prompts"]) <= 0]
    if metrics["prompts"] < FEWEST:
        end = f"{too_few(metrics)} to tell them from the base."
    else:
        end = f"Not beyond the interval for {' and '.join(failed)}." if failed else "All are beyond the interval."
    return f"Positive control, the gain over the base of a policy aligned on that objective: {'; '.join(words)}. {end}"


def strength(metrics: RunMetrics) -> str:
    """Return by how much more the first by hypervolume was trained than the next, and how much further it went."""
    # the control answers at the corners alone
    fronts = [method for method in metrics["methods"] if method["method"].rpartition(":")[2] != CONTROL]
    ranked = sorted(fronts, key=lambda method: method["hypervolume"]["estimate"], reverse=True)
    if len(ranked) < 2 or ranked[0]["hypervolume"]["estimate"] == 0:
        return ""
    first, second = ranked[:2]
    ratios = {name: first[name] / second[name] for name in STRENGTH_TITLES if second[name]}
    more = [f"{ratio:.1f} times its {STRENGTH_TITLES[name]}" for name, ratio in ratios.items() if ratio > MUCH_MORE]
    if not more:
        return ""
    end = "More training and a greater distance from the base model can raise a front by themselves."
    return f"Next to {second['title']}, the second by hypervolume, {first['title']} has {' and '.join(more)}. {end}"


def remarks(metrics: RunMetrics) -> list[str]:
    """Return what a reader must know beside the headline."""
    return [said for said in (control(metrics), strength(metrics)) if said]


def results_note(metrics: RunMetrics) -> str:
    """Return what must be known to read the table of results."""
    return RESULTS_NOTE.format(level=metrics["bootstrap"]["level"], prompts=metrics["prompts"])


def results_table(metrics: RunMetrics) -> TextTable:
    """Return a row a method: its statistics with intervals, and what belongs beside them."""
    judged = any(method["win_rate"] is not None for method in metrics["methods"])
    columns = [title.format(against=_title(metrics, metrics["against"])) for title in RESULT_TITLES.values()]
    header = ["method", *columns, *(title for title, _ in BESIDE_TITLES.values()), *(["preferred"] if judged else [])]
    rows = []
    for method in metrics["methods"]:
        row = [method["title"]]
        for name in RESULT_TITLES:
            row.append(_cell(method[name], 2, sign=name.endswith("_gain")))
        row += [number(method[name], decimals) for name, (_, decimals) in BESIDE_TITLES.items()]
        rows.append([*row, *([_win_rate(method)] if judged else [])])
    return header, rows


def cost_table(metrics: RunMetrics, minutes: Mapping[str, float | None] | None = None) -> TextTable:
    """Return a row a method: what it cost from the prepared data on; minutes only where they are given."""
    rows = [[method["title"], *(f"{method[name]:,}" for name in COST_TITLES)] for method in metrics["methods"]]
    header = ["method", *COST_TITLES.values()]
    if minutes is None:
        return header, rows
    spent = [minutes[method["method"]] for method in metrics["methods"]]
    ends = [NONE if one is None else number(one, 1) for one in spent]
    return [*header, "minutes"], [[*row, end] for row, end in zip(rows, ends, strict=True)]


def points_table(metrics: RunMetrics) -> TextTable:
    """Return a row a method and weight: mean rewards with intervals, and those of answers alike in length."""
    names = metrics["objectives"]
    matched = [f"{name}, alike in length" for name in names]
    header = ["method", f"weights ({', '.join(names)})", *names, *matched, "prompts alike", "words", "KL, nats"]
    rows = []
    for entry in metrics["points"]:
        mark = "● " if entry["on_union_front"] else ""
        row = [_title(metrics, entry["method"]), mark + (entry["point"] or "all")]
        for found in (entry["mean"], entry["length_matched"]):
            row += [_cell(found and found[name], _decimals(metrics, name)) for name in names]
        alike = f"{entry['length_matched_prompts']} of {metrics['prompts']}"
        rows.append([*row, alike, number(entry["words"], 1), number(entry["kl"])])
    return header, rows


def sensitivity_table(metrics: RunMetrics, rows: Sequence[Mapping[str, Any]]) -> TextTable:
    """Return a row a method, a column a ruler: hypervolume and in brackets the rank."""
    rulers = list(dict.fromkeys((row["unit"], row["units_below_mean"]) for row in rows))
    found = {(row["method"], row["unit"], row["units_below_mean"]): row for row in rows}
    header = ["method", *(f"{unit}, {number(below, 1)} below the mean" for unit, below in rulers)]
    cells = [
        [method["title"], *(_ranked(found[method["method"], unit, below]) for unit, below in rulers)]
        for method in metrics["methods"]
    ]
    return header, cells


def markdown(metrics: RunMetrics) -> str:
    """Return the results and the cost as Markdown; the same bytes each time, and so without minutes."""
    notes = [f"{markdown_text(note)}\n" for note in (results_note(metrics), *remarks(metrics))]
    return "\n".join([markdown_table(*results_table(metrics)), *notes, markdown_table(*cost_table(metrics))])


def latex(metrics: RunMetrics) -> str:
    """Return the results and the cost as two LaTeX tables; the same bytes each time, and so without minutes."""
    results = latex_table(*results_table(metrics), results_note(metrics))
    return f"{results}\n{latex_table(*cost_table(metrics), 'What each method cost, shared stages included.')}"


def frame_table(metrics: RunMetrics) -> TextTable:
    """Return a row an objective: the ruler that calibrate fixed."""
    rows = []
    for name in metrics["objectives"]:
        one = metrics["frame"]["objectives"][name]
        rows.append([name, *(number(one[key], _decimals(metrics, name)) for key in ("mean", "scale", "reference"))])
    return ["objective", "mean", "unit", "reference point"], rows


def _ranked(row: Mapping[str, Any]) -> str:
    return f"{number(row['hypervolume'])} ({row['rank']})"


def _title(metrics: RunMetrics, name: str) -> str:
    return next(method["title"] for method in metrics["methods"] if method["method"] == name)


def _cell(entry: Mapping[str, float] | None, decimals: int, sign: bool = False) -> str:
    return NONE if entry is None else unbroken(with_interval(entry, decimals, sign))


def _win_rate(method: RunMetrics) -> str:
    return NONE if method["win_rate"] is None else number(method["win_rate"])


def _decimals(metrics: RunMetrics, name: str) -> int:
    return decimals_of(metrics["frame"]["objectives"][name]["scale"])
