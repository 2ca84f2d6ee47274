"""The Python API, and the page that shows it."""

import re
from pathlib import Path

import pytest
import torch
from lively_run import Lively

from sipo_pl.messages.errors import UsageError, UserError
from sipo_pl.recipe.recipe import AlignmentStage
from sipo_pl.text.prompt import Prompt
from sipo_pl.use.api import Policies, Weights, load
from sipo_pl.use.functions import implicit_rewards

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
KEPT: tuple[AlignmentStage | None, ...] = ("align", "realign", None)
PROMPTS: list[Prompt] = ["test 0", "test 1"]


@pytest.fixture(scope="module")
def run(lively: Lively) -> Policies:
    return load(lively.run)


def test_the_page_runs_as_printed(lively: Lively, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len([line for line in first.splitlines() if line]) <= 10
    program = (first + second).replace("runs/quickstart", str(lively.run))
    program = program.replace("detail=0.7,ease=0.3", "kind=0.7,short=0.3")
    known: dict[str, object] = {}
    exec(compile(program, str(PAGE), "exec"), known)
    said = capsys.readouterr().out
    answers = known["answers"]
    assert isinstance(answers, list)
    assert len(answers) == 2
    assert all(answers)
    assert said.count(answers[0]) == 2  # printed whole, and streamed
    assert "first " in said
    assert "second " in said


def test_weights_are_taken_in_every_form(run: Policies) -> None:
    forms: list[Weights] = ["0.7,0.3", (0.7, 0.3), {"short": 0.3, "kind": 0.7}]
    texts = [run.fuse(form).generate(PROMPTS, max_new_tokens=8) for form in forms]
    assert texts[0] == texts[1] == texts[2]
    assert texts[0] != run.fuse("0,1").generate(PROMPTS, max_new_tokens=8)
    for wrong, said in ((None, "names none"), ((0.5,), "1 numbers"), ((0.5, 0.6), "sum to 1.1")):
        with pytest.raises(UserError, match=said):
            run.fuse(wrong)
    with pytest.raises(UsageError, match="did you mean 'kind'"):
        run.fuse({"kin": 0.5, "short": 0.5})


def test_scores_are_implicit_rewards(run: Policies, lively: Lively) -> None:
    answers = ["red bird", "blue"]
    folders = [str(lively.run / f"realign-{name}" / "adapter") for name in run.objectives]
    template = run.source.template.pattern
    expected = implicit_rewards(str(lively.base), folders, [str(p) for p in PROMPTS], answers, prompt_template=template)
    found = run.score(PROMPTS, answers)
    for row, one in zip(found, expected, strict=True):
        torch.testing.assert_close(list(row.values()), one.reward)
        assert list(row) == ["kind", "short"]


def test_earlier_policies_can_be_asked_for(finished_run: Path) -> None:
    sources = [load(finished_run / "run", policies=policies).source for policies in KEPT]
    folders = [[policy.source.parent.name for policy in source.policies if policy.source] for source in sources]
    assert folders == [["align-kind", "align-short"], *[["realign-kind", "realign-short"]] * 2]


def test_another_base_model_under_the_same_name_is_refused(lively: Lively) -> None:
    with pytest.raises(UserError, match="not the model that the policies were trained on"):
        load(lively.run, policies="align")  # the fixture changed the base of the re-alignment alone


def test_prompts_that_leave_no_room_are_refused(run: Policies) -> None:
    with pytest.raises(UserError, match="prompt 1 has 48 tokens of 40: none is left to answer"):
        run.fuse("1,0").generate(["x", "y" * 41], max_length=40)
