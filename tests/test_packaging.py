"""What is shipped: the wheel that is built of the source archive works outside a checkout."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "sipo_pl", "configs", "callbacks")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a wheel built of a source archive that was built of a copy of the checkout."""
    folder = tmp_path_factory.mktemp("build")
    for name in SOURCES:
        source, target = ROOT / name, folder / "checkout" / name
        target.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    run("-m", "build", "--sdist", "--no-isolation", "--outdir", folder, folder / "checkout")
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    unpacked = folder / archive.name.removesuffix(".tar.gz")
    run("-m", "build", "--wheel", "--no-isolation", "--outdir", folder, unpacked)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder into which the wheel is installed, without its dependencies."""
    target = tmp_path_factory.mktemp("installed")
    run("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", target, wheel)
    return target


def run(*words: object, cwd: Path | None = None, path: Path | None = None) -> str:
    """Run Python and return what it printed."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_what_is_not_code(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {"sipo_pl/py.typed", "sipo_pl/callbacks/writer.py"}
    for suffix in ("yaml", "jsonl", "md"):
        wanted |= {f"sipo_pl/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob(f"*.{suffix}")}
    for suffix in ("txt", "js", "yaml"):
        wanted |= {str(path.relative_to(ROOT)) for path in (ROOT / "sipo_pl").glob(f"*/*.{suffix}")}
    wanted |= {str(path.relative_to(ROOT)) for path in (ROOT / "sipo_pl/serve/page").iterdir()}
    assert len(wanted) > 20
    assert wanted <= names
    assert not [name for name in names if name.startswith(("tests/", "configs/", "callbacks/"))]


def test_the_installed_wheel_plans_and_parses_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    where = run("-c", "import sipo_pl; print(sipo_pl.__file__)", cwd=tmp_path, path=installed)
    assert where.startswith(str(installed))
    script = installed / "bin/sipo_pl"
    plan = run(script, "run", "--config", "quickstart/recipe.yaml", "--dry_run", cwd=tmp_path, path=installed)
    assert "sipo_pl fit --config quickstart/align.yaml --objective detail" in plan
    words = ["fit", "--config", "quickstart/align.yaml", "--objective", "detail", "--print_config"]
    printed = yaml.safe_load(run(script, *words, cwd=tmp_path, path=installed))
    assert printed["recipe"]["name"] == "quickstart"
