"""What a comparison writes: page, tables, pictures and curves, of judged answers that are made up."""

import base64
import csv
import json
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from sipo_pl.messages.errors import UserError
from sipo_pl.method.weights import WeightPlan
from sipo_pl.recipe.methods import entrants
from sipo_pl.recipe.recipe import Data, Objective, Recipe
from sipo_pl.registry import METHODS
from sipo_pl.registry.stage import Method
from sipo_pl.report.comparison.looks import looks
from sipo_pl.report.comparison.pictures import gains, utilities
from sipo_pl.report.comparison.reading import control, headline, markdown, strength
from sipo_pl.report.comparison.tables import BESIDE, COST
from sipo_pl.report.plain_tables import latex_table, latex_text, markdown_code, markdown_text
from sipo_pl.report.tables import number
from sipo_pl.stages.compare import compare
from sipo_pl.storage.json_lines import read_json, write_json, write_jsonl
from sipo_pl.storage.manifest import open_stage

NASTY = '</script><script>document.title = "broken"</script><!-- <img src="https://example.org/x.png"> & \u2028 \x00'
NAMES = ["a_b", "50%&$", "plain", "x^2"]  # what LaTeX and Markdown take for their own
MADE = ["sft", "dpo", "mod", "consistency", "sipo"]
PROMPTS = 12
PICTURES = {2: {"fronts", "methods", "cost"}, 3: {"fronts", "ternary", "cost"}, 4: {"fronts", "cost"}}


def make_run(folder: Path, n: int) -> Recipe:
    """Write the folders that compare reads."""
    recipe = Recipe(
        "demo_#1",
        "tiny",
        [Objective(name, reward={"class_path": "sipo_pl.rewards.text.Ease"}) for name in NAMES[:n]],
        Data(train=["t"], validation=["v"]),
        methods=MADE,
        evaluate_weights=WeightPlan(grid=0.25, corners=True),
        run_dir=str(folder),
    )
    answers, judged = [], []
    hard = np.random.default_rng(0).normal(size=(PROMPTS, n)) * 0.3
    for prompt in range(PROMPTS):
        for place, one in enumerate(entrants(recipe)):
            weights = [float(w) for w in one.point.split(",")] if one.point else [0.4] * n
            row = {"sample_id": f"p{prompt}/{one.method}/{one.point}/0", "prompt_id": f"p{prompt}"}
            row |= {"method": one.method, "point": one.point, "tokens": 9, "finish_reason": "eos"}
            row |= {"marks": ["cut"] if prompt == 0 else [], "kl": 0.0 if one.method == "sft" else 1.5}
            gain = 0.5 * (one.method == "sipo")
            rewards = dict(zip(NAMES, (hard[prompt] + np.array(weights) + gain).tolist(), strict=False))
            judged.append({**row, "rewards": rewards, "words": 20 + place})
            text = f"Answer {prompt} of {one.method} at {one.point}. {NASTY if prompt == 0 else ''}"
            answers.append({**row, "prompt": f"Question {prompt}? {NASTY}", "k": 0, "text": text})
    kept = {"mean": 0.1, "scale": 0.5, "reference": -0.9, "quantiles": {"0.25": -0.2, "0.75": 0.4}}
    frame = {"texts": 30, "below": 2.0, "objectives": dict.fromkeys(NAMES[:n], kept)}
    generated = {"0.5,0.5": {"rows": 8, "clean": 7, "kept": 5}}
    for stage, files in {
        "prepare": {recipe.layout.test_prompts.name: [{"prompt": "x"}]},
        "calibrate": {recipe.layout.frame.name: frame},
        "answer": {"unit-00000.jsonl": answers},
        "judge": {"unit-00000.jsonl": judged},
        "filter": {"yields.json": {"pairs": 8, "kept": 5, "stages": {"sample": generated, "filter": generated}}},
    }.items():
        manifest = open_stage(folder / stage, stage, {}, {}, seed=1)
        for name, value in files.items():
            (write_jsonl if name.endswith(".jsonl") else write_json)(folder / stage / name, value)
        manifest.finish(folder / stage, [folder / stage / name for name in files])
    return recipe


@pytest.fixture(scope="module", params=[2, 3, 4])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder `compare` of a comparison over two, three or four objectives."""
    folder = tmp_path_factory.mktemp("made")
    compare(make_run(folder / "run", request.param), resamples=60)
    return folder / "run/compare"


class Page(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.policy = ""
        self.found: dict[str, str] = {}
        self.reading = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        at = dict(attrs)
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        self.reading = (at.get("id") or tag) if tag in ("script", "style") else ""
        if at.get("http-equiv") == "Content-Security-Policy":
            self.policy = at["content"] or ""

    def handle_data(self, data: str) -> None:
        self.found[self.reading] = self.found.get(self.reading, "") + data

    def handle_endtag(self, tag: str) -> None:
        self.reading = ""


def page_of(folder: Path) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# files


def test_pictures_fit_the_number_of_objectives_and_the_manifest_names_all_files(made: Path) -> None:
    metrics = read_json(made / "metrics.json")
    pictures = PICTURES[len(metrics["objectives"])]
    assert {path.stem for path in made.glob("*.png")} == {path.stem for path in made.glob("*.svg")} == pictures
    there = {str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()} - {"manifest.json"}
    assert set(read_json(made / "manifest.json")["files"]) == there
    for path in made.glob("*.svg"):
        text = path.read_text(encoding="utf-8")
        assert not re.findall(r'href="(?!#|data:)', text)  # nothing but what it holds
        assert "<script" not in text


@pytest.mark.parametrize("n", [2, 3])
def test_a_second_run_writes_the_same_bytes(tmp_path: Path, n: int) -> None:
    for name in ("one", "two"):
        compare(make_run(tmp_path / name, n), resamples=60)
    one, two = (
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name / "compare").rglob("*")
            if path.is_file()
        }
        for name in ("one", "two")
    )
    assert len(one) > len(MADE) + 6
    assert [path for path in one if one[path] != two.get(path)] == []


# numbers


def test_csv_holds_the_numbers_of_metrics_json(made: Path) -> None:
    metrics = read_json(made / "metrics.json")
    for row, entry in zip(rows_of(made / "table.csv"), metrics["methods"], strict=True):
        assert row["title"] == entry["title"]
        for name in ("hypervolume", "hypervolume_gain", "igd_plus", "mip", "kendall_tau", "union_share", "spread"):
            found = entry[name]
            ends = [""] * 3 if found is None else [str(found[end]) for end in ("estimate", "low", "high")]
            assert [row[name], row[f"{name}_low"], row[f"{name}_high"]] == ends
        assert [row[name] for name in COST] == [str(entry[name]) for name in COST]
    for row, entry in zip(rows_of(made / "points.csv"), metrics["points"], strict=True):
        assert (row["method"], row["point"]) == (entry["method"], entry["point"])
        for name in metrics["objectives"]:
            assert float(row[name]) == entry["mean"][name]["estimate"]
            gain = entry["gain"][name]
            assert [float(row[f"{name}_gain{end}"]) for end in ("", "_low", "_high")] == [*gain.values()]
            base = metrics["points"][0]["mean"][name]["estimate"]
            assert gain["estimate"] == pytest.approx(entry["mean"][name]["estimate"] - base, abs=1e-6)


def test_tables_for_reading_hold_the_numbers_of_metrics_json(made: Path) -> None:
    metrics = read_json(made / "metrics.json")
    markdown = (made / "table.md").read_text(encoding="utf-8").splitlines()
    tex = (made / "table.tex").read_text(encoding="utf-8").splitlines()
    for entry in metrics["methods"]:
        results, cost = (line for line in markdown if line.startswith(f"| {entry['title']} |"))
        shown = [cell.strip().replace("\\", "") for cell in results.strip("| ").split(" | ")]
        for cell, name in zip(shown[1:4], ("hypervolume", "hypervolume_gain", "igd_plus"), strict=True):
            ends = [number(entry[name][end]) for end in ("low", "high")]
            estimate = number(entry[name]["estimate"], sign=name.endswith("gain"))
            assert cell == f"{estimate} [{ends[0]},\u00a0{ends[1]}]"
        assert [cell.strip().replace(",", "") for cell in cost.strip("| ").split(" | ")[1:]] == [
            str(entry[name]) for name in COST
        ]
        assert len([line for line in tex if line.startswith(f"{entry['title']} & ")]) == 2
        in_tex = latex_text(shown[1])
        assert any(line.startswith(f"{entry['title']} & {in_tex} & ") for line in tex)
    columns = {len(line.split(" & ")) for line in tex if line.endswith(r"\\")}
    assert columns == {1 + 7 + 4, 1 + len(COST)}


def test_weighted_rewards_over_the_weights_have_mip_as_mean(tmp_path: Path) -> None:
    compare(make_run(tmp_path / "run", 3), resamples=60)
    metrics = read_json(tmp_path / "run/compare/metrics.json")
    for entry in metrics["methods"]:
        found = utilities(metrics, entry["method"])
        assert np.mean(list(found.values())) == pytest.approx(entry["mip"]["estimate"], rel=1e-6)
        assert len(found) == (3 if entry["method"] == "dpo" else len(metrics["weights"]))
        if entry["method"] != "dpo":
            gain = np.mean(list(gains(metrics, entry["method"]).values()))
            assert gain == pytest.approx(entry["mip_gain"]["estimate"], abs=1e-6)


def test_tensorboard_reads_the_same_numbers(made: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    metrics = read_json(made / "metrics.json")
    for entry in metrics["methods"]:
        events = EventAccumulator(str(made / "tensorboard" / entry["method"]))
        events.Reload()
        values = {tag: [one.value for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
        assert values["hypervolume"] == pytest.approx([entry["hypervolume"]["estimate"]])
        assert values["hypervolume_gain_low"] == pytest.approx([entry["hypervolume_gain"]["low"]])
        assert {name for name in BESIDE if name in values} == {name for name in BESIDE if entry[name] is not None}
        for name in metrics["objectives"]:
            points = [one for one in metrics["points"] if one["method"] == entry["method"]]
            assert values[f"mean/{name}"] == pytest.approx([one["mean"][name]["estimate"] for one in points])
        assert events.PluginTagToContent("hparams")


def test_the_headline_claims_no_more_than_the_intervals(made: Path) -> None:
    metrics = read_json(made / "metrics.json")
    said = headline(metrics)
    assert re.match(r"Largest hypervolume: .*, that of SIPO\.", said)
    for entry in metrics["methods"]:
        entry["hypervolume_gain"] = {"estimate": 0.1, "low": -0.1, "high": 0.3}
    assert "For 4 of 4 methods these prompts do not tell it from that of SFT" in headline(metrics)
    assert "Beyond the interval" not in headline(metrics)
    for entry in metrics["methods"]:
        entry["hypervolume"]["estimate"] = 0.0
    assert "tells nothing" in headline(metrics)


# what readers' programs take for their own


def test_the_control_is_each_objectives_own_policy_over_the_base(made: Path) -> None:
    metrics = read_json(made / "metrics.json")
    said = control(metrics)
    corners = [entry for entry in metrics["points"] if entry["method"] == "dpo"]
    for entry in corners:
        name = metrics["objectives"][entry["point"].split(",").index("1")]
        assert number(entry["gain"][name]["estimate"], 2, sign=True) in said
    assert "All are beyond the interval." in said
    few = {**metrics, "prompts": 3}
    assert control(few).endswith("3 test prompts are too few to tell them from the base.")
    assert headline(few).endswith("but 3 test prompts are too few to tell methods apart.")
    corners[0]["gain"][metrics["objectives"][0]]["low"] = -0.1
    assert f"Not beyond the interval for {metrics['objectives'][0]}." in control(metrics)
    metrics["points"] = [entry for entry in metrics["points"] if entry["method"] != "dpo"]
    assert control(metrics) == ""


def test_it_is_said_where_the_first_was_trained_more_than_the_next(made: Path) -> None:
    metrics = read_json(made / "metrics.json")
    ranked = sorted(metrics["methods"], key=lambda one: (one["method"] != "dpo", one["hypervolume"]["estimate"]))
    first, second = ranked[-1], ranked[-2]
    first |= {"trained_tokens": 300, "kl": 2.2}
    second |= {"trained_tokens": 100, "kl": 2.0}
    begin = f"Next to {second['title']}, the second by hypervolume, {first['title']} has "
    assert strength(metrics).startswith(f"{begin}3.0 times its training tokens. More training")
    first["kl"] = 5.0
    assert "3.0 times its training tokens and 2.5 times its KL from the base model." in strength(metrics)
    assert strength(metrics) in markdown(metrics)
    second |= {"trained_tokens": 0, "kl": 0.0}  # the base model
    assert strength(metrics) == ""
    second |= {"trained_tokens": 100, "kl": 2.0}
    assert strength(metrics)
    for entry in metrics["methods"]:
        entry["hypervolume"]["estimate"] = 0.0
    assert strength(metrics) == ""
    metrics["methods"] = [first]
    assert strength(metrics) == ""


def test_special_characters_are_escaped() -> None:
    assert latex_text(r"a_b & 50% #1 $x$ {y} ~ ^ \z") == (
        r"a\_b \& 50\% \#1 \$x\$ \{y\} \textasciitilde{} \textasciicircum{} \textbackslash{}z"
    )
    assert r"\midrule" + "\n{[}b] & \\% \\\\\n" in latex_table(["a", "b"], [["[b]", "%"]])
    assert latex_text("−1 – <2>\n3") == r"$-$1 -- \textless{}2\textgreater{} 3"
    assert markdown_text("a_b | *c* `d` [e]\n<f>") == r"a\_b \| \*c\* \`d\` \[e\] \<f\>"
    assert markdown_text("&lt; # ~ $x$ http://a @b\r\x1b") == r"\&lt; \# \~ \$x\$ http\://a \@b  "
    assert [markdown_code(text) for text in ("a_b", "a`b", "``")] == ["`a_b`", "`` a`b ``", "``` `` ```"]


def test_runs_put_beside_are_named_and_drawn_apart(tmp_path: Path) -> None:
    other = tmp_path / "no_filter & 100%"
    compare(make_run(other, 2), resamples=60)
    compare(make_run(tmp_path / "run", 2), resamples=60, others=[str(other)])
    folder = tmp_path / "run/compare"
    tex = (folder / "table.tex").read_text(encoding="utf-8")
    assert r"SIPO (no\_filter \& 100\%) & " in tex
    page = page_of(folder)
    assert "Yields per stage and weight: SIPO (no_filter & 100%)" in page.found[""]
    assert len(json.loads(page.found["answers"])["methods"]) == 2 * len(MADE)
    assert (folder / "tensorboard/no_filter & 100%.sipo").is_dir()


def test_runs_that_cannot_stand_beside_are_refused_in_words(tmp_path: Path) -> None:
    recipe = make_run(tmp_path / "run", 2)
    for name in ("a/other", "b/other"):
        compare(make_run(tmp_path / name, 2), resamples=60)
    with pytest.raises(UserError, match=r"others: .*a/other and .*b/other have one name"):
        compare(recipe, resamples=60, others=[str(tmp_path / "a/other"), str(tmp_path / "b/other")])
    with pytest.raises(UserError, match="is the folder of this comparison"):
        compare(recipe, resamples=60, others=[str(tmp_path / "a/../run")])
    metrics = tmp_path / "a/other/compare/metrics.json"
    for cost, message in (({}, r"whose cost is told there: sft"), (None, r"metrics\.json: tells no cost of methods")):
        write_json(metrics, {**read_json(metrics), "cost": cost})
        with pytest.raises(UserError, match=message):
            compare(recipe, resamples=60, others=[str(tmp_path / "a/other")], overwrite=True)


def test_methods_are_told_apart_without_colour() -> None:
    found = looks([*METHODS, *(f"other:{name}" for name in METHODS)])
    assert len({(look.marker, look.fill) for look in found.values()}) == len(found)
    assert looks(["sipo"])["sipo"] == found["sipo"]  # the same in every comparison


def test_further_methods_get_looks_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    before = looks(METHODS)
    for count in range(15 - len(METHODS)):
        monkeypatch.setitem(METHODS, f"own_{count}", Method(f"Own {count}", "fused"))
    found = looks(METHODS)
    assert len(found) == 15
    assert {name: found[name] for name in before} == before
    assert len({look.colour for look in found.values()}) == 15
    for shown in ("colour", "line"):
        assert len({(look.marker, getattr(look, shown)) for look in found.values()}) == 15


# the page


def test_page_asks_nothing_from_anywhere_and_texts_stay_texts(made: Path) -> None:
    page = page_of(made)
    assert page.links
    assert all(link.startswith("data:") for link in page.links)
    assert page.policy.startswith("default-src 'none'; img-src data:")
    assert "unsafe" not in page.policy.split("script-src")[1]
    assert page.tags.count("script") == 2  # the data and the program
    assert not re.search(r"fetch|XMLHttp|import|innerHTML|https?:", page.found["script"])
    assert not re.search(r"url\(|@import", page.found["style"])
    data = json.loads(page.found["answers"])
    assert any(NASTY in text for text in data["texts"])
    assert all(NASTY in prompt for prompt in data["prompts"])
    for link in page.links[1:]:
        assert base64.b64decode(link.partition(",")[2]).startswith(b"<?xml")


def test_the_browser_holds_every_answer_with_its_numbers(made: Path) -> None:
    data = json.loads(page_of(made).found["answers"])
    metrics = read_json(made / "metrics.json")
    assert data["objectives"] == metrics["objectives"]
    assert len(data["answers"]) == PROMPTS * len(metrics["points"])
    for entry in metrics["points"]:
        title = METHODS[entry["method"]].title
        key = [data["methods"].index(title), data["points"].index(entry["point"])]
        scores = [answer[4] for answer in data["answers"] if answer[1:3] == key]
        means = [entry["mean"][name]["estimate"] for name in metrics["objectives"]]
        assert np.mean(scores, axis=0) == pytest.approx(means, abs=1e-4)


def test_a_cap_leaves_whole_prompts_and_says_how_many(tmp_path: Path) -> None:
    recipe = make_run(tmp_path / "run", 2)
    each = len(entrants(recipe))
    compare(recipe, resamples=60, examples=5 * each + each - 1)
    page = page_of(tmp_path / "run/compare")
    data = json.loads(page.found["answers"])
    assert (len(data["prompts"]), len(data["answers"])) == (5, 5 * each)
    assert "5 of 12 test prompts, at even distances" in page.found[""]
    compare(recipe, resamples=60, examples=0, overwrite=True)
    assert "answers" not in page_of(tmp_path / "run/compare").found


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


@pytest.fixture(scope="module")
def shown_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shown")
    compare(make_run(folder / "run", 2), resamples=60)
    return folder / "run/compare/report.html"


def dumped(html: Path) -> str:
    """Return the page as a browser holds it after its program has run."""
    words = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={html.parent / 'profile'}"]
    words += ["--virtual-time-budget=3000", "--dump-dom", str(html)]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=True).stdout


@needs_chromium
def test_a_browser_shows_texts_as_texts(shown_page: Path) -> None:
    html = dumped(shown_page)
    page = Page(html)
    assert page.tags.count("article") == 10
    assert "12 of 12 prompts, page 1 of 2" in page.found[""]
    assert "Answer 0 of sft at . </script><script>document.title" in page.found[""]
    assert page.tags.count("script") == 2
    assert "<title>demo_#1: comparison</title>" in html


ACTIONS = """
const seen = [], wait = (ms) => new Promise((done) => setTimeout(done, ms));
const set = (name, value, kind) => {
  const control = document.getElementById(`browse-${name}`);
  control.value = value;
  control.dispatchEvent(new Event(kind));
};
const look = async () => {
  await wait(200);
  const titles = [...document.querySelectorAll("#browse-list article:first-child b")].map((one) => one.textContent);
  const first = document.querySelector("#browse-list .prompt");
  seen.push([document.getElementById("browse-status").textContent, first && first.textContent.slice(0, 12), titles]);
};
const press = (key) => document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
(async () => {
  press("n"); await look();
  press("p"); press("/"); seen.push(document.activeElement.id);
  set("text", "answer 7 OF sipo", "input"); await look();
  set("text", "", "input"); set("sort", "highest", "change"); await look();
  set("sort", "lowest", "change"); await look();
  set("least", "LEAST", "input"); await look();
  set("least", "", "input"); set("right", "*", "change"); await look();
  set("left", "2", "change"); set("right", "2", "change"); set("right-weight", "5", "change"); await look();
  document.title = JSON.stringify(seen);
})();
"""


@needs_chromium
def test_the_browser_pages_filters_and_sorts(shown_page: Path, tmp_path: Path) -> None:
    data = json.loads(Page(shown_page.read_text("utf-8")).found["answers"])
    scores = {data["prompts"][row[0]][:12]: row[4][0] for row in data["answers"] if data["methods"][row[1]] == "SFT"}
    order = sorted(scores, key=lambda prompt: scores[prompt])
    html = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", shown_page.read_text("utf-8"))
    acted = tmp_path / "acted.html"
    script = ACTIONS.replace("LEAST", str(scores[order[-3]]))
    acted.write_text(html.replace("</body></html>", f"<script>{script}</script></body></html>"), encoding="utf-8")
    title = re.search("<title>(.*?)</title>", dumped(acted), re.DOTALL)
    assert title is not None
    second, focus, found, highest, lowest, three, every, weights = json.loads(unescape(title[1]))
    assert second[:2] == ["12 of 12 prompts, page 2 of 2", "Question 10?"]
    assert second[2] == ["SFT, one answer for all weights", "SIPO at 0.5,0.5"]
    assert focus == "browse-text"
    assert found[:2] == ["1 of 12 prompts, page 1 of 1", "Question 7? "]
    assert (highest[1], lowest[1]) == (order[-1], order[0])
    assert three[0] == "3 of 12 prompts, page 1 of 1"
    assert every[2][1:] == ["DPO per objective at 0.5,0.5", "MOD at 0.5,0.5", *every[2][3:]]
    assert len(every[2]) == len(MADE)
    assert weights[2] == ["MOD at 0.5,0.5", "MOD at 0,1"]
