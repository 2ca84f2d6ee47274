"""The report of synthetic run folders."""

import io
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sipo_pl.data.units import read_units
from sipo_pl.messages.errors import UsageError, UserError
from sipo_pl.method.weights import WeightPlan, point_name
from sipo_pl.recipe.recipe import Data, Objective, Recipe
from sipo_pl.report.cells import measured_cells
from sipo_pl.report.figures import weighted_reward
from sipo_pl.report.numbers import summarise
from sipo_pl.report.tables import headline, remarks, summary_table
from sipo_pl.report.ternary import place
from sipo_pl.stages.report import report
from sipo_pl.storage.files import remove
from sipo_pl.storage.json_lines import read_json, read_jsonl, write_json, write_jsonl
from sipo_pl.storage.manifest import open_stage
from sipo_pl.text.prompt import text_id

NASTY = '<script>alert("x")</script> & <img src="https://example.org/x.png">'
PROMPTS = 24


@dataclass
class Run:
    """A run folder whose rewards rise from base to before to after."""

    recipe: Recipe
    gain: float = 0.4

    @property
    def names(self) -> list[str]:
        return self.recipe.objective_names

    @property
    def points(self) -> list[tuple[float, ...]]:
        return self.recipe.evaluate_weights.resolve(self.names)

    def finish(self, stage: str, files: dict[str, Any]) -> None:
        folder = self.recipe.layout.stage(stage)
        manifest = open_stage(folder, stage, {}, {}, seed=1)
        for name, value in files.items():
            (write_jsonl if name.endswith(".jsonl") else write_json)(folder / name, value)
        manifest.finish(folder, [folder / name for name in files])

    def measured(self, lift: float, base: bool, points: Sequence[tuple[float, ...]] = ()) -> list[dict[str, Any]]:
        rng = np.random.default_rng(0)  # the same in both phases, so that their mean difference is the gain
        hardness = rng.normal(size=(PROMPTS, len(self.names))) * 0.3
        cells: list[tuple[str, list[float], float]] = [(point_name(p), list(p), lift) for p in points or self.points]
        if base:
            cells.append(("base", [1 / len(self.names)] * len(self.names), -0.5))
        rows = []
        for prompt in range(PROMPTS):
            swing = 0.0 if base else 0.1 * (-1) ** prompt
            for point, weights, up in cells:
                values = hardness[prompt] + np.array(weights) * 2 + up + swing
                row: dict[str, Any] = {"sample_id": f"t{prompt}/{point}/0", "prompt_id": f"t{prompt}", "point": point}
                row["rewards"] = dict(zip(self.names, values.tolist(), strict=True))
                row["words"] = 40 + prompt + (30 if up > 0 and prompt % 2 else 0)
                row["finish_reason"] = "length" if prompt < 6 else "eos"
                row["marks"] = ["collapsed"] if prompt == 0 else []
                rows.append(row)
        return rows

    def numbers(self) -> dict[str, Any]:
        cells = measured_cells(self.names, self.measured(0.0, base=True), self.measured(self.gain, base=False))
        return summarise(cells, seed=0, resamples=200)

    def measure(self, stage: str, lift: float, base: bool, points: Sequence[tuple[float, ...]] = ()) -> None:
        rows, texts = self.measured(lift, base, points), []
        for row in rows:
            text = f"Response to {row['prompt_id']} at {row['point']}. {NASTY if row['prompt_id'] == 't0' else ''}"
            kept = {key: row[key] for key in ("sample_id", "prompt_id", "point", "finish_reason", "marks")}
            texts.append({**kept, "prompt": f"Question {row['prompt_id']}?", "k": 0, "text": text, "tokens": 9})
        half = len(rows) // 2
        self.finish(stage, {"unit-00000.jsonl": rows[:half], "unit-00001.jsonl": rows[half:]})
        self.finish(stage.replace("measure", "evaluate"), {"unit-00000.jsonl": texts})

    def candidates(self) -> None:
        points = [point_name(p) for p in self.recipe.sample_weights.resolve(self.names)]
        pairs, samples, reviews, rewrites, scores, combined, kept = ([] for _ in range(7))
        for p in range(10):
            prompt_id, prompt = f"p{p}", f"Why {p}? {NASTY}"
            responses = [f"{'Short' if i else 'Long'} answer {p}. " * (1 if i else 12) for i in (0, 1)]
            preferred = {name: i % 2 for i, name in enumerate(self.names)}
            pair = {"pair_id": f"{prompt_id}/0-1", "prompt_id": prompt_id, "prompt": prompt, "preferred": preferred}
            pair |= {"response_0": responses[0], "response_1": responses[1]}
            pairs.append(pair)
            for point in points:
                sample_id = f"{prompt_id}/{point}/0"
                ends = {
                    "sample_id": sample_id,
                    "prompt_id": prompt_id,
                    "tokens": 7,
                    "finish_reason": "eos",
                    "marks": [],
                }
                text, better = f"Sampled {p} at {point}. {NASTY}", f"Rewritten {p} at {point}. " * 5
                where = {"prompt": prompt, "point": point, "k": 0}
                samples.append({**ends, **where, "text": text})
                reviews.append({**ends, "review": f"1. Be clear. {NASTY}"})
                rewrites.append({**ends, "text": better})
                rewards = {f"policy:{name}": p + i / 3 for i, name in enumerate(self.names)}
                for gain, scored in enumerate((*responses, text, better)):
                    found = {name: value + gain * 0.25 for name, value in rewards.items()}
                    scores.append({"text_id": text_id(prompt_id, scored), "prompt_id": prompt_id, "rewards": found})
                best = {**ends, **where, "text": better, "source": "rewrite", "rewards": rewards}
                combined.append(best)
            if p < 7:
                chosen = {"kept": better, "sample_id": sample_id, "point": point, "source": "rewrite"}
                kept.append({**pair, **chosen, "margin": 0.25, "rewards": rewards})
        self.finish("sample", {"unit-00000.jsonl": samples})
        self.finish("review", {"unit-00000.jsonl": reviews})
        self.finish("rewrite", {"unit-00000.jsonl": rewrites})
        self.finish("score", {"unit-00000.jsonl": scores})
        chosen = {point: {"original": 3, "rewrite": 7, "none": 0} for point in points}
        self.finish("combine", {"combined.jsonl": combined, "yields.json": chosen})
        generated = {point: {"rows": 10, "empty": 0, "cut": 1, "clean": 9} for point in points}
        stages = {
            "sample": generated,
            "rewrite": generated,
            "combine": chosen,
            "filter": {point: {"candidates": 10, "survive": 7, "kept": 7, "fails_response_0": 3} for point in points},
        }
        yields = {"pairs": 10, "kept": 7, "kept_share": 0.7, "on_too_few": None, "stages": stages}
        self.finish("filter", {"kept.jsonl": kept, "yields.json": yields})
        two = f"{self.names[0]} / {self.names[1]}"
        statistics = {
            "splits": {"train": {"prompts": 12, "pairs": 20, "conflict_share": 0.5}, "test": {"prompts": PROMPTS}},
            "conflicts": {s: {two: {"untied": 20, "conflicts": 10}} for s in ("train", "validation")},
            "dropped": {"train": {"pairs over 512 tokens, template and EOS included": 4}, "validation": {}},
        }
        self.finish("prepare", {"statistics.json": statistics, "train_conflict.jsonl": pairs})

    def complete(self) -> "Run":
        self.measure("measure-align", 0.0, base=True)
        self.measure("measure-realign", self.gain, base=False)
        self.candidates()
        return self


@pytest.fixture
def make_run(tmp_path: Path):
    def make(n: int = 2, folder: str = "run", **changes: Any) -> Run:
        names = ["detail", "ease", "brev_ity", "50% & up"][:n]
        recipe = Recipe(
            name="demo",
            base_model="tiny",
            objectives=[Objective(name) for name in names],
            data=Data(train=[], validation=[]),
            sample_weights=WeightPlan(grid=0.25),
            evaluate_weights=WeightPlan(grid=0.25, corners=True),
            run_dir=str(tmp_path / folder),
        )
        return Run(recipe, **changes)

    return make


def make_report(run: Run, **options: Any) -> tuple[dict[str, Any], str]:
    report(run.recipe, resamples=100, **options)
    folder = run.recipe.layout.stage("report")
    assert (folder / "pareto.png").read_bytes().startswith(b"\x89PNG")
    return read_json(folder / "metrics.json"), (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("n", [2, 3])
def test_numbers_of_a_complete_run(make_run, n: int) -> None:
    run = make_run(n).complete()
    metrics, _ = make_report(run)

    assert metrics["objectives"] == run.names
    assert metrics["prompts"] == PROMPTS
    phases = [(entry["phase"], entry["point"]) for entry in metrics["points"]]
    points = [point_name(point) for point in run.points]
    assert phases == [("base", "base"), *(("before", p) for p in points), *(("after", p) for p in points)]
    for entry in metrics["points"]:
        assert entry["prompts"] == PROMPTS
        assert entry["finished"] == 0.75
        assert entry["collapsed"] == pytest.approx(1 / PROMPTS)
        for name in run.names:
            assert entry["mean"][name]["low"] <= entry["mean"][name]["estimate"] <= entry["mean"][name]["high"]
    assert [(c["phase"], c["objective"]) for c in metrics["corners"]] == [
        (phase, name) for phase in ("before", "after") for name in run.names
    ]
    assert all(corner["beats_base"] for corner in metrics["corners"])
    volume = metrics["hypervolume"]
    assert volume["change"]["estimate"] == pytest.approx(volume["after"]["estimate"] - volume["before"]["estimate"])
    assert volume["change"]["low"] > 0
    assert volume["fixed_by"] == ["base", "before"]
    for change in metrics["changes"]:
        assert change["length_matched"]["prompts"] == PROMPTS // 2  # the others are 30 words longer
        assert change["difference"][run.names[0]]["estimate"] == pytest.approx(run.gain)
    assert metrics["yields"]["filter"]["kept"] == 7
    assert metrics["statistics"]["splits"]["train"]["pairs"] == 20


def test_the_frame_comes_from_base_and_before_alone(make_run) -> None:
    frames = []
    for gain in (0.1, 5.0):
        metrics = make_run(gain=gain).numbers()
        frames.append((metrics["hypervolume"]["reference"], metrics["hypervolume"]["range"]))
        early = [entry["mean"] for entry in metrics["points"] if entry["phase"] != "after"]
        for name in metrics["objectives"]:
            low = min(mean[name]["estimate"] for mean in early)
            assert frames[-1][0][name] == pytest.approx(low - 0.1 * frames[-1][1][name])
    assert frames[0] == frames[1]


def test_metrics_json_is_the_same_bytes_whatever_the_units(make_run) -> None:
    first, second = make_run(folder="first").complete(), make_run(folder="second").complete()
    for stage in ("measure-align", "measure-realign"):
        folder = second.recipe.layout.stage(stage)
        rows = read_units(folder)
        remove(folder)
        second.finish(stage, {"unit-00000.jsonl": rows[::-1]})
    for run in (first, second):
        make_report(run)
    written = [(run.recipe.layout.stage("report") / "metrics.json").read_bytes() for run in (first, second)]
    assert written[0] == written[1]


@pytest.mark.parametrize("n", [2, 3])
def test_pictures_and_tables_are_the_same_bytes_each_time(make_run, n: int) -> None:
    found = []
    for folder in ("first", "second"):
        run = make_run(n, folder=folder).complete()
        make_report(run)
        found.append({path.name: path.read_bytes() for path in run.recipe.layout.stage("report").iterdir()})
    pictures = {"pareto", "ternary"} if n == 3 else {"pareto"}
    drawn = {f"{name}.{kind}" for name in pictures for kind in ("png", "svg")}
    assert set(found[0]) == {"manifest.json", "metrics.json", "report.html", "table.md", "table.tex", *drawn}
    assert found[0] == found[1]


@pytest.mark.parametrize("n", [2, 4])
def test_tables_for_papers_hold_the_means(make_run, n: int) -> None:
    run = make_run(n).complete()
    metrics, _ = make_report(run)
    folder = run.recipe.layout.stage("report")
    markdown = [line for line in (folder / "table.md").read_text("utf-8").splitlines() if line.startswith("|")]
    tex = [line for line in (folder / "table.tex").read_text("utf-8").splitlines() if line.endswith(r"\\")]
    points = list(dict.fromkeys(entry["point"] for entry in metrics["points"]))
    assert [line.split(" | ")[0].strip("| ") for line in markdown[2:]] == points
    for entry in metrics["points"]:
        (line,) = (line for line in tex if line.startswith(f"{entry['point']} & "))
        for mean in entry["mean"].values():
            assert f"{mean['estimate']:.2f}".replace("-", "$-$") in line
    assert all(line.count(" & ") == 2 * n for line in tex)
    assert all(line.count(" | ") == 2 * n for line in markdown)
    assert ("brev\\_ity before" in tex[0]) == (n == 4)
    assert ("50\\% \\& up after" in tex[0]) == (n == 4)


def test_triangles_show_the_weighted_reward(make_run) -> None:
    metrics = make_run(3).numbers()
    entry = next(entry for entry in metrics["points"] if entry["point"] == "0.5,0.25,0.25")
    frame = metrics["hypervolume"]
    by_hand = sum(
        weight * (entry["mean"][name]["estimate"] - frame["reference"][name]) / frame["range"][name]
        for weight, name in zip((0.5, 0.25, 0.25), metrics["objectives"], strict=True)
    )
    found = weighted_reward(entry["mean"], (0.5, 0.25, 0.25), frame["reference"], frame["range"])
    assert found == pytest.approx(by_hand)
    assert place((1.0, 0.0, 0.0)) == (0.0, 0.0)
    assert place((1 / 3, 1 / 3, 1 / 3)) == pytest.approx((0.5, 3**0.5 / 6))


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("n", [2, 3])
def test_page_asks_nothing_from_anywhere_and_escapes_texts(make_run, n: int) -> None:
    metrics, html = make_report(make_run(n).complete())
    page = _Page()
    page.feed(html)
    assert page.links
    assert all(link.startswith("data:") for link in page.links)
    assert "script" not in page.tags
    assert "default-src 'none'" in html
    assert page.tags.count("img") == 1 + (n == 3)
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert NASTY in page.text  # the reader sees it as it was
    assert headline(metrics) in page.text


def test_page_shows_candidates_kept_first_then_others(make_run) -> None:
    _, html = make_report(make_run().complete(), samples=9)
    page = _Page()
    page.feed(html)
    candidates = html[html.index("<h2>Candidates") : html.index("<h2>Test prompts")]
    assert candidates.count("<article") == 9
    assert candidates.count("Kept: the rewrite, margin 0.25.") == 7
    assert candidates.count("Not kept: the rewrite beats both originals, and another candidate of the pair") == 2
    assert "preferred by detail" in candidates
    assert "detail 3.75 · ease 4.08" in candidates
    for words in ("Be clear.", "Rewritten 1 at", "Sampled 1 at", "Long answer 1."):
        assert words in page.text


def test_chat_prompts_show_their_roles(make_run) -> None:
    run = make_run().complete()
    folder = run.recipe.layout.stage("filter")
    kept, yields = read_jsonl(folder / "kept.jsonl"), read_json(folder / "yields.json")
    for row in kept:
        row["prompt"] = [{"role": "user", "content": "Hello <b>"}]
    remove(folder)
    run.finish("filter", {"kept.jsonl": kept, "yields.json": yields})
    _, html = make_report(run)
    assert "user: Hello &lt;b&gt;" in html


def test_missing_stages_are_left_out_with_a_line(make_run) -> None:
    run = make_run()
    run.measure("measure-align", 0.0, base=True)
    metrics, html = make_report(run)
    assert metrics["hypervolume"]["after"] is None
    assert metrics["hypervolume"]["change"] is None
    assert metrics["changes"] == []
    assert metrics["statistics"] is None
    assert "(stage measure-realign has not run)" in html
    assert "(stage review has not run)" in html
    assert "a re-alignment was not measured" in headline(metrics)


def test_a_switched_off_stage_is_left_out_though_its_folder_exists(make_run) -> None:
    run = make_run().complete()
    run.recipe.stages["review"] = False
    _, html = make_report(run)
    assert "(stage review is switched off)" in html
    assert "Be clear." not in html


def test_without_review_rewrite_combine_and_scores(make_run) -> None:
    run = make_run().complete()
    for stage in ("review", "rewrite", "score", "combine", "filter"):
        run.recipe.stages[stage] = False
    metrics, html = make_report(run, samples=3)
    assert metrics["yields"] == {}
    assert html.count("Not kept.") == 3
    assert "Sampled 0 at 0.75,0.25." in html
    assert "(stage score is switched off)" in html


def test_only_the_realigned_front(make_run) -> None:
    run = make_run()
    run.measure("measure-realign", 0.4, base=False)
    metrics, _ = make_report(run)
    assert metrics["hypervolume"]["fixed_by"] == ["after"]
    assert metrics["hypervolume"]["after"]["estimate"] > 0
    assert metrics["corners"] == []
    assert "the first alignment was not measured" in headline(metrics)


def test_errors_say_what_is_missing(make_run, logged: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UserError, match=r"neither .*measure-align nor .*measure-realign"):
        report(make_run(folder="empty").recipe)
    with pytest.raises(UsageError, match="resamples"):
        report(make_run().recipe, resamples=5)

    run = make_run(folder="incomplete")
    open_stage(run.recipe.layout.stage("measure-align"), "measure-align", {}, {}, seed=1)
    with pytest.raises(UserError, match="not complete"):
        report(run.recipe)

    run = make_run(folder="objective").complete()
    run.recipe.objectives.append(Objective("humour"))
    with pytest.raises(UserError, match=r"no reward of humour, found detail, ease"):
        report(run.recipe)

    run = make_run(folder="weights")
    run.measure("measure-align", 0.0, base=True, points=[(1.0, 0.0)])
    run.measure("measure-realign", 0.0, base=False, points=[(0.0, 1.0)])
    with pytest.raises(UserError, match="no weight in common"):
        report(run.recipe)


def test_a_complete_report_is_not_made_twice(make_run, logged: pytest.LogCaptureFixture) -> None:
    run = make_run().complete()
    make_report(run)
    page = run.recipe.layout.stage("report") / "report.html"
    made = page.stat().st_mtime_ns
    with logged.at_level(logging.INFO, logger="sipo_pl"):
        make_report(run)
    assert page.stat().st_mtime_ns == made
    assert "complete" in logged.text
    with pytest.raises(UserError, match="resamples"):
        report(run.recipe, resamples=50)
    report(run.recipe, resamples=50, overwrite=True)


def test_summary_table_and_words_follow_the_numbers(make_run) -> None:
    from rich.console import Console

    metrics = make_run().numbers()
    console = Console(width=160, file=io.StringIO())
    console.print(summary_table(metrics))
    text = console.file.getvalue()
    for point in ("base", "1,0", "0.75,0.25", "0,1"):
        assert re.search(rf"{re.escape(point)}\s", text)
    assert "improved the front" in headline(metrics)
    assert "Control passed" in remarks(metrics)[0]
    assert "longer after re-alignment" in remarks(metrics)[1]

    assert "does not show an improvement" in headline(make_run(gain=0.0).numbers())
    assert "made the front worse" in headline(make_run(gain=-0.4).numbers())


@pytest.mark.parametrize("prompts", [1, 2, 3, 9])
def test_few_prompts_claim_nothing(make_run, monkeypatch: pytest.MonkeyPatch, prompts: int) -> None:
    monkeypatch.setitem(globals(), "PROMPTS", prompts)
    metrics, html = make_report(make_run().complete())
    assert metrics["prompts"] == prompts
    assert not any(corner["beats_base"] for corner in metrics["corners"])
    are = "1 test prompt is" if prompts == 1 else f"{prompts} test prompts are"
    assert headline(metrics).endswith(f"{are} too few to say whether re-alignment changed the front.")
    assert remarks(metrics)[0] == f"No control: {are} too few to tell the corners from the base."
    assert "improved" not in html
    assert "beyond the interval" not in html


def test_a_failed_control_is_said(make_run) -> None:
    run = make_run()
    run.measure("measure-align", -4.0, base=True)
    metrics, html = make_report(run)
    assert not any(corner["beats_base"] for corner in metrics["corners"])
    assert "Control failed" in remarks(metrics)[0]
    assert "Control failed" in html


# rounds


def test_each_round_has_its_front_its_step_and_its_yields(make_run) -> None:
    run = make_run().complete()
    recipe = replace(run.recipe, rounds=2)
    second = Run(replace(recipe, round=2), gain=0.7)
    for name in ("combine", "filter"):
        source = recipe.layout.stage(name)
        files = ("combined.jsonl", "kept.jsonl", "yields.json")
        found = {file: source / file for file in files if (source / file).exists()}
        second.finish(
            name, {file: (read_jsonl if file.endswith("l") else read_json)(path) for file, path in found.items()}
        )
    second.measure("measure-realign", second.gain, base=False)
    report(recipe, resamples=60)
    metrics = read_json(recipe.layout.stage("report") / "metrics.json")
    phases = list(dict.fromkeys(entry["phase"] for entry in metrics["points"]))
    assert phases == ["base", "before", "round 1", "after"]
    means = {(entry["phase"], entry["point"]): entry["mean"] for entry in metrics["points"]}
    point, name = metrics["hypervolume"]["points"][0], run.names[0]
    rise = means["round 1", point][name]["estimate"] - means["before", point][name]["estimate"]
    assert rise == pytest.approx(run.gain)
    assert metrics["changes"][0]["difference"][name]["estimate"] == pytest.approx(second.gain)  # the last round
    steps = metrics["hypervolume"]["rounds"]
    assert [(step["since"], step["phase"]) for step in steps] == [("before", "round 1"), ("round 1", "after")]
    volumes = [metrics["hypervolume"]["before"], *(step["volume"] for step in steps)]
    assert volumes[-1] == metrics["hypervolume"]["after"]
    for before, after, step in zip(volumes, volumes[1:], steps, strict=False):
        assert step["change"]["estimate"] == pytest.approx(after["estimate"] - before["estimate"], rel=1e-6)
    assert list(metrics["yields"]) == ["combine", "filter", "round-2/combine", "round-2/filter"]
    page = (recipe.layout.stage("report") / "report.html").read_text()
    assert "after round 1" in page
    assert "<h3>Round 2</h3>" in page


def test_a_further_round_makes_the_report_anew(make_run) -> None:
    run = make_run().complete()
    report(run.recipe, resamples=60)
    once = read_json(run.recipe.layout.stage("report") / "metrics.json")
    assert "rounds" not in once["hypervolume"]
    recipe = replace(run.recipe, rounds=2)
    Run(replace(recipe, round=2)).measure("measure-realign", 0.7, base=False)
    report(recipe, resamples=60)
    assert len(read_json(recipe.layout.stage("report") / "metrics.json")["hypervolume"]["rounds"]) == 2
