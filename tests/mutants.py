"""Breaks the method in one place at a time and asks whether a test fails: `make mutants`.

Each mutant is a text substitution in a copy of the package; the tests of its room run against the copy.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("sipo_pl", "callbacks", "configs", "tests", "pyproject.toml")
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
SHOWN = 4  # failing tests that are named in a line


class Mutant(NamedTuple):
    """One break of the method.

    Args:
        name: what is broken
        file: where, below `sipo_pl`
        old: the text that is replaced; it occurs once
        new: what stands there instead
        tests: files and folders below `tests` that run
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTANTS = (
    Mutant(
        "sign of the DPO difference",
        "method/losses/dpo.py",
        "compare(chosen - rejected, kind)",
        "compare(rejected - chosen, kind)",
        ("golden/test_losses_golden.py", "test_losses.py", "test_method_properties.py"),
    ),
    Mutant(
        "beta",
        "method/divergences/reverse_kl.py",
        "return beta * log_ratios",
        "return log_ratios",
        ("golden/test_losses_golden.py", "golden/test_rewards.py", "test_losses.py", "test_method_properties.py"),
    ),
    Mutant(
        "order of the fusion weights",
        "method/fusion.py",
        "columns = weights.T[..., None]\n    return torch.where(columns == 0, torch.zeros",
        "columns = weights.flip(1).T[..., None]\n    return torch.where(columns == 0, torch.zeros",
        ("golden/test_decoding.py", "test_fusion.py"),
    ),
    Mutant(
        "EOS in the mask of training",
        "text/token_batch.py",
        "real & (positions >= starts)",
        "real & (positions >= starts) & (positions < lengths - 1)",
        ("golden/test_training.py", "policies/test_logprobs.py"),
    ),
    Mutant(
        "EOS in what is scored",
        "text/templates.py",
        "return Encoded([*ids, self.eos_id] if",
        "return Encoded([*ids] if",
        ("golden/test_rewards.py", "golden/test_tokens.py", "data/test_templates.py"),
    ),
    Mutant(
        "strictness of the filter",
        "method/selection.py",
        "minimum_margin(candidate.rewards, responses) > 0]",
        "minimum_margin(candidate.rewards, responses) >= 0]",
        ("golden/test_selection_golden.py", "test_selection.py"),
    ),
    Mutant(
        "interpolation of B",
        "engine/lora/adapters.py",
        "_weighted_sum([adapter[name][1] for adapter in adapters], weights)",
        "_weighted_sum([adapter[name][1] for adapter in adapters], weights[::-1])",
        ("golden/test_interpolation.py", "golden/test_rewards.py", "policies/test_adapters.py"),
    ),
    Mutant(
        "normaliser of the NLL term",
        "method/losses/dpo.py",
        "return -policy_chosen / chosen_lengths",
        "return -policy_chosen / (chosen_lengths - 1)",
        ("golden/test_losses_golden.py", "test_losses.py", "test_method_properties.py"),
    ),
    Mutant(
        "rule of combine",
        "method/selection.py",
        '"original" if all(',
        '"original" if any(',
        ("golden/test_selection_golden.py", "test_selection.py"),
    ),
)


def main() -> int:
    """Run every mutant; return 0 where each made a test fail."""
    survived = []
    for mutant in MUTANTS:
        failing = failing_tests(mutant)
        named = ", ".join(failing[:SHOWN]) + (" …" if len(failing) > SHOWN else "")
        print(f"| {mutant.name} | `{mutant.file}` | {len(failing)} | {named} |", flush=True)
        if not failing:
            survived.append(mutant.name)
    if survived:
        print(f"no test fails for: {', '.join(survived)}")
    return len(survived)


def failing_tests(mutant: Mutant) -> list[str]:
    """Return the tests that fail against a copy with the mutant.

    Raises:
        SystemExit: the text to be replaced does not occur once, or pytest could not run.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in COPIED:
            place(ROOT / name, copy / name)
        path = copy / "sipo_pl" / mutant.file
        text = path.read_text()
        if text.count(mutant.old) != 1:
            raise SystemExit(f"{mutant.name}: {mutant.old!r} occurs {text.count(mutant.old)} times in {mutant.file}")
        path.write_text(text.replace(mutant.old, mutant.new))
        tests = [str(Path("tests", name)) for name in mutant.tests]
        command = [sys.executable, "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", *tests]
        environment = {**os.environ, "PYTHONPATH": folder, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1):
            raise SystemExit(f"{mutant.name}: pytest ended with {done.returncode}\n{done.stdout}{done.stderr}")
        return [test.removeprefix("tests/") for test in FAILED.findall(done.stdout)]


def place(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", ".hypothesis"))
    else:
        shutil.copyfile(source, target)


if __name__ == "__main__":
    sys.exit(main())
