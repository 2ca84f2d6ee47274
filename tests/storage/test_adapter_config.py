"""What an adapter's own config may say, and what is refused before anything is read by it."""

import json
from pathlib import Path
from typing import Any

import pytest

from sipo_pl.messages.errors import UserError
from sipo_pl.storage.adapter_config import ADAPTER_CONFIG, WEIGHTS_FILE, read_adapter_config


def folder_with(folder: Path, **settings: Any) -> Path:
    (folder / ADAPTER_CONFIG).write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8, **settings}))
    (folder / WEIGHTS_FILE).touch()
    return folder


@pytest.mark.parametrize(
    "pattern",
    [
        "q_proj",
        "model.layers.0.self_attn.q_proj",
        r"^model\.layers\.(?:0|1|2|3|4|5|6|7|8|9|10|11|12|13|14|15)\.self_attn\.[qkvo]_proj",
        r".*\.layers\.[0-9]+\.mlp\.(gate|up|down)_proj",
        r"layers\.(\d{1,2})\.(self_attn|mlp)\.\w+",
        r"(?P<kind>[qk])_proj",
    ],
)
def test_patterns_that_name_modules_are_read(tmp_path: Path, pattern: str) -> None:
    assert read_adapter_config(folder_with(tmp_path, alpha_pattern={pattern: 9}))["alpha_pattern"] == {pattern: 9}


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("(a+)+b", "may take for ever"),
        ("(a|a)*b", "may take for ever"),
        ("((x)y){2,}z", "may take for ever"),
        (".*.*.*.*.*=.*", "may take for ever"),
        (r"\w+\w+\w+\w+!", "may take for ever"),
        ("a?" * 30 + "a" * 30, "may take for ever"),
        ("(a|a)" * 30 + "b", "may take for ever"),
        ("a" * 2000, "has 2000 letters"),
        ("(q_proj", "is no regular expression"),
        ("[", "is no regular expression"),
    ],
)
def test_patterns_that_may_never_end_are_refused(tmp_path: Path, pattern: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem) as refused:
        read_adapter_config(folder_with(tmp_path, alpha_pattern={pattern: 9}))
    assert f"{ADAPTER_CONFIG}: alpha_pattern" in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r": 0}, "r: expected a whole number from 1 on, found 0"),
        ({"r": "8"}, "r: expected a whole number from 1 on, found '8'"),
        ({"r": True}, "r: expected a whole number"),
        ({"lora_alpha": float("nan")}, "lora_alpha: expected a number, found nan"),
        ({"lora_alpha": None}, "lora_alpha: expected a number, found None"),
        ({"alpha_pattern": {"q_proj": "9"}}, "q_proj: expected a number, found '9'"),
        ({"alpha_pattern": ["q_proj"]}, "alpha_pattern: expected patterns and numbers"),
    ],
)
def test_ranks_and_scales_that_are_no_numbers_are_refused(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read_adapter_config(folder_with(tmp_path, **settings))
