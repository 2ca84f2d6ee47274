# ruff: noqa: E501 (messages stand in the tables as they are said)
"""What is wrong in a user's data is told in one line, with place and expectation, for every format."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import CHAT_TEMPLATE, make_tiny_model
from tiny_run import Command, write_recipe, write_rows, write_yaml

FAILED, WRONG_USE = 1, 2
CONVERTERS = "sipo_pl.data.converters"
GONE = object()  # in place of the value of a key that is to be removed
USER, SAYS = {"role": "user", "content": "p"}, {"role": "assistant", "content": "a"}
PAIR = {"prompt": "p", "response_0": "a", "response_1": "b", "kind": 0, "short": 1}
RESPONSE = {"prompt": "p", "response": "a", "kind": 1, "short": 2}
PREFERENCE = {"prompt": "p", "chosen": "a", "rejected": "b"}


@pytest.fixture(scope="module")
def weightless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_tiny_model(tmp_path_factory.mktemp("weightless") / "model", chat_template=CHAT_TEMPLATE)
    (folder / "model.safetensors").unlink()
    return folder


@pytest.fixture
def folder(tmp_path: Path, weightless: Path) -> Path:
    """Folder of a recipe whose data a test replaces."""
    write_recipe(tmp_path, weightless)
    return tmp_path


def set_data(folder: Path, **changes: Any) -> None:
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    recipe["data"] = {key: value for key, value in {**recipe["data"], **changes}.items() if value is not None}
    write_yaml(folder / "recipe.yaml", recipe)


def fails(command: Command, folder: Path, code: int, message: str) -> None:
    """Prepare; assert the exit code and that all that is said, beside progress, is this one line."""
    said = command("prepare", "--config", folder / "prepare.yaml")
    lines = [line for line in said.err.splitlines() if not line.startswith("prepare: ")]
    assert lines == [f"sipo_pl prepare: {message}".replace("{dir}", str(folder))]
    assert said.code == code
    assert not (folder / "run/prepare/train.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "change", "message"),
    [
        ({}, {"kind": 2}, "key 'kind': expected 0, 1 or -1, found the number 2"),
        ({}, {"kind": -2}, "key 'kind': expected 0, 1 or -1, found the number -2"),
        ({}, {"kind": "1"}, "key 'kind': expected a number, found the string \"1\""),
        ({}, {"kind": True}, "key 'kind': expected a number, found the boolean true"),
        ({}, {"response_0": None}, "key 'response_0': expected a string, found null"),
        ({}, {"response_1": [SAYS]}, "key 'response_1': expected text, as the prompt is text, found the list [{\"role\": \"assistant\", \"content\": \"a\"}]"),
        ({}, {"prompt": [SAYS, USER, USER]}, "key 'prompt[2]': expected user and assistant in turns, found two messages of role 'user'"),
        ({}, {"prompt": [USER, SAYS]}, "key 'prompt': the last message must be the user's, found role 'assistant'"),
        ({}, {"prompt": [USER], "response_0": [USER]}, "key 'response_0': expected text or one message of the assistant, found the list [{\"role\": \"user\", \"content\": \"p\"}]"),
        ({"label": "sign"}, {"short": 3}, "key 'short': expected 0, 1 or -1, found the number 3"),
        ({"label": "scores"}, {"kind_1": GONE}, "no key 'kind_1'; did you mean 'kind_0'?"),
        ({"label": "scores", "score_range": [0, 4]}, {"kind_0": 1, "kind_1": 5}, "key 'kind_1': expected a number from 0 to 4, found the number 5"),
        ({"id": "nr"}, {"nr": 1}, "key 'nr': expected an id that no other pair of the prompt has ({dir}/train.jsonl:1), found the number 1"),
        ({"id": "nr"}, {"nr": None}, "key 'nr': expected an id, text or a whole number, found null"),
        ({"response_0": "answer"}, {}, "no key 'answer'; known: kind, kind_0, kind_1, nr, prompt, response_0, response_1, short, short_0, short_1"),
    ],
)  # fmt: skip
def test_pairs(folder: Path, command: Command, arguments: dict[str, Any], change: dict[str, Any], message: str) -> None:
    good = {**PAIR, "kind_0": 1, "kind_1": 0, "short_0": 0, "short_1": 1, "nr": 1}
    bad = {key: value for key, value in {**good, **change}.items() if value is not GONE}
    write_rows(folder / "train.jsonl", [good, bad])
    number = 1 if "response_0" in arguments else 2  # the one column that no row has
    set_data(folder, converter={"class_path": f"{CONVERTERS}.pairs.Pairs", "init_args": arguments})
    fails(command, folder, FAILED, f"{{dir}}/train.jsonl:{number}: {message}")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"prompt": "p", "chosen": "a"}, "no key 'rejected'; known: chosen, prompt"),
        ({**PREFERENCE, "chosen": 3}, "key 'chosen': expected a string, found the number 3"),
        ({**PREFERENCE, "chosen": [SAYS]}, "key 'chosen': expected text, as the prompt is text, found the list [{\"role\": \"assistant\", \"content\": \"a\"}]"),
        ({"chosen": [USER, SAYS], "rejected": "b"}, "key 'chosen': expected a string, found the list [{\"role\": \"user\", \"content\": \"p\"}, {\"rol…"),
        ({"chosen": [USER, SAYS], "rejected": [SAYS]}, "key 'rejected': expected messages that end with the user's and the assistant's, found the list [{\"role\": \"assistant\", \"content\": \"a\"}]"),
        ({"chosen": [USER, SAYS], "rejected": [{**USER, "content": "q"}, SAYS]}, "keys 'chosen' and 'rejected': expected conversations that differ in their last message alone"),
        ({"chosen": [USER, {"role": "bot", "content": "a"}], "rejected": [USER, SAYS]}, "key 'chosen[1]': unknown role 'bot'; known: assistant, system, user"),
        ({"chosen": "a", "rejected": "b"}, "no key 'prompt', and 'chosen' and 'rejected' have no common beginning that could be the prompt"),
        ({**PREFERENCE, "chosen": "b", "rejected": "a"}, "expected the preference of {dir}/train.jsonl:1, which has the same pair, found the opposite"),
    ],
)  # fmt: skip
def test_preference_files(folder: Path, command: Command, bad: dict[str, Any], message: str) -> None:
    write_rows(folder / "train.jsonl", [PREFERENCE, bad])
    write_rows(folder / "good.jsonl", [PREFERENCE])
    set_data(
        folder,
        converter={"class_path": f"{CONVERTERS}.trl.TRL"},
        train={"kind": ["good.jsonl"], "short": ["train.jsonl"]},
        validation={"kind": ["good.jsonl"], "short": ["good.jsonl"]},
    )
    fails(command, folder, FAILED, f"{{dir}}/train.jsonl:2: {message}")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", b"p,a,3,4\np,b,4,3\n", "{dir}/x.csv:1: expected a header row of distinct column names, found '3' among them"),
        ("x.csv", b"prompt,response,kind,short\np,a,3\n", "{dir}/x.csv:2: expected 4 cells, as in the header, found 3"),
        ("x.csv", b"prompt,response,kind,short\np,a,good,3\n", "{dir}/x.csv:2: key 'kind': expected a number, found the text \"good\""),
        ("x.csv", b"prompt,response,kind\np,a,3\n", "{dir}/x.csv:2: no key 'short'; known: kind, prompt, response"),
        ("x.csv", b'prompt,response,kind,short\np,"a,3,3\n', "{dir}/x.csv:2: not CSV: unexpected end of data"),
        ("x.parquet", b"PAR1 and no more", "{dir}/x.parquet: not parquet: Parquet magic bytes not found in footer. Either the file is corrupted or this is not a parquet file."),
        ("x.jsonl.gz", b"{}", "{dir}/x.jsonl.gz: cannot be read: Not a gzipped file (b'{}')"),
        ("x.tsv", b"prompt\n", "{dir}/x.tsv: unknown format; known: .jsonl, .jsonl.gz, .json, .parquet, .csv"),
    ],
)  # fmt: skip
def test_files(folder: Path, command: Command, name: str, content: bytes, message: str) -> None:
    (folder / name).write_bytes(content)
    set_data(folder, train=[name])
    fails(command, folder, FAILED, message)


def test_a_score_out_of_range(folder: Path, command: Command) -> None:
    write_rows(folder / "train.jsonl", [RESPONSE, {**RESPONSE, "response": "b", "short": 4.5}])
    set_data(
        folder, converter={"class_path": f"{CONVERTERS}.helpsteer.HelpSteer", "init_args": {"score_range": [0, 4]}}
    )
    fails(
        command, folder, FAILED, "{dir}/train.jsonl:2: key 'short': expected a number from 0 to 4, found the number 4.5"
    )


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"train": ["hub:owner/name:train"]}, FAILED, "hub:owner/name:train: not in the local cache, and HF_HUB_OFFLINE is set"),
        ({"train": ["hub:owner/name"]}, WRONG_USE, "{dir}/recipe.yaml:11: data.train: hub:owner/name: expected hub:owner/name:split@revision, or hub:owner/name/config:split@revision"),
        ({"train": "train.jsonl"}, WRONG_USE, "{dir}/recipe.yaml:11: data.train: expected list[file] or dict[str, list[file]], found 'train.jsonl'"),
        ({"train": {"kind": ["train.jsonl"], "shrt": ["train.jsonl"]}}, WRONG_USE, "{dir}/recipe.yaml:11: data.train: no objective 'shrt'; did you mean 'short'?"),
        ({"train": {"kind": ["train.jsonl"]}}, WRONG_USE, "{dir}/recipe.yaml:11: data.train: names no file for objective 'short'"),
        ({"train": {"kind": ["train.jsonl"], "short": ["train.jsonl"]}}, FAILED, "data: the converter HelpSteer takes a list of files, not files by objective"),
        ({"converter": {"class_path": f"{CONVERTERS}.trl.TRL"}}, FAILED, "data: the converter TRL takes files by objective, such as {kind: [kind.jsonl], short: [short.jsonl]}"),
        ({"converter": {"class_path": f"{CONVERTERS}.pairs.Pairs", "init_args": {"label": "idx"}}}, WRONG_USE, "data.converter.init_args.label: no kind 'idx'; did you mean 'index'?"),
        ({"validation": None}, WRONG_USE, "recipe.data.validation: names no file; data.validation_share draws it from train"),
        ({"validation_share": 0.1}, WRONG_USE, "{dir}/recipe.yaml:17: data.validation_share: data.validation names files already; leave one of them out"),
        ({"validation": None, "validation_share": 10}, WRONG_USE, "{dir}/recipe.yaml:15: data.validation_share: expected a number >0 and <1 or null, found '10'"),
        ({"test_last": 7}, FAILED, "data.test_last: asks for 7 rows, the test files hold 6"),
        ({"test": None, "test_last": 7}, WRONG_USE, "{dir}/recipe.yaml:15: data.test_last: data.test names no file to take them from"),
        ({"test_last": 1, "test_first": 1}, WRONG_USE, "{dir}/recipe.yaml:17: data.test_last: data.test_first is given already; leave one of them out"),
        ({"mixture": {"share": 60}}, WRONG_USE, "{dir}/recipe.yaml:18: data.mixture.share: expected a number >=0 and <=1 or null, found '60'"),
        ({"mixture": {"shar": 0.6}}, WRONG_USE, "{dir}/recipe.yaml:18: no key 'data.mixture.shar'; did you mean 'data.mixture.share'?"),
        ({"mixture": {"take": "lst"}}, WRONG_USE, "{dir}/recipe.yaml:18: data.mixture.take: expected one of 'first', 'last', found 'lst'; did you mean 'last'?"),
        ({"mixture": {"share": 0.6}}, FAILED, "data.train: nothing is left; dropped: 6 pairs that the mixture leaves out"),
    ],
)  # fmt: skip
def test_settings(folder: Path, command: Command, changes: dict[str, Any], code: int, message: str) -> None:
    set_data(folder, **changes)
    fails(command, folder, code, message)
