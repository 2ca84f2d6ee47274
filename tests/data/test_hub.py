import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import datasets
import pytest
from tiny_run import environment

from sipo_pl.data.hub import hub_hash, read_hub
from sipo_pl.data.readers import read_all, source_hash
from sipo_pl.messages.errors import UserError
from sipo_pl.recipe.hub_names import HubSource, parse_hub_name

ROWS = [{"prompt": "p", "response": str(index), "kind": index} for index in range(3)]
COMMIT = "0123456789" * 4
ERROR_CODES = {"gated": (403, "GatedRepo"), "missing": (404, "RepoNotFound"), "tagged": (404, "RevisionNotFound")}


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The local cache as a download of the data set owner/my_data leaves it."""
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    built = datasets.load_dataset_builder("json", data_files={"train": str(source)}, cache_dir=str(tmp_path / "json"))
    built.download_and_prepare()
    folder = tmp_path / "cache/owner___my_data/default/0.0.0" / COMMIT
    shutil.copytree(built.cache_dir, folder)
    (folder / "json-train.arrow").rename(folder / "my_data-train.arrow")
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps({**info, "config_name": "default", "dataset_name": "my_data"}))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("hub:a/b:train", HubSource("a/b", None, "train", None)),
        ("hub:a/b.c-d:test@v1", HubSource("a/b.c-d", None, "test", "v1")),
        ("hub:a/b/main:train[-500:]@refs/pr/1", HubSource("a/b", "main", "train[-500:]", "refs/pr/1")),
    ],
)
def test_names_have_an_owner_and_a_split(name: str, parts: HubSource) -> None:
    assert parse_hub_name(name) == parts


@pytest.mark.parametrize("name", ["hub:b:train", "hub:a/b", "hub:a/b:", "hub:a/b:train@", "hub:a/b/c/d:train"])
def test_other_names_are_told_the_form(name: str) -> None:
    with pytest.raises(UserError, match=f"^{name}: expected hub:owner/name:split@revision, or "):
        parse_hub_name(name)


@pytest.mark.usefixtures("cached")
def test_rows_of_the_cache_are_read_without_the_hub() -> None:
    found = list(read_all(["hub:owner/my_data:train"]))
    assert found == [(f"hub:owner/my_data:train: row {number}", row) for number, row in enumerate(ROWS, start=1)]
    assert [row for _, row in read_hub(f"hub:owner/my_data:train[1:]@{COMMIT[:8]}")] == ROWS[1:]


@pytest.mark.usefixtures("cached")
def test_the_hash_is_of_the_content() -> None:
    whole = source_hash("hub:owner/my_data:train")
    assert whole == hub_hash(f"hub:owner/my_data:train@{COMMIT}")
    assert whole != hub_hash("hub:owner/my_data:train[:1]")


@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hub:owner/my_data:tran", 'Unknown split "tran"'),
        ("hub:owner/my_data/fine:train", "for config 'fine'"),
        ("hub:owner/my_data:train@abcdef1", f"the local cache holds another revision: {COMMIT}"),
        ("hub:owner/other:train", "not in the local cache, and HF_HUB_OFFLINE is set"),
    ],
)
def test_what_the_cache_does_not_hold(name: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        list(read_hub(name))
    assert str(error.value).startswith(f"{name}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


class _Refusing(BaseHTTPRequestHandler):
    """A hub that has none of the data sets asked for."""

    def do_GET(self) -> None:
        status, code = next((ERROR_CODES[name] for name in ERROR_CODES if f"/{name}" in self.path), (400, ""))
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_hub_that_refuses_or_is_out_of_reach_is_asked_once(refusing: str, tmp_path: Path) -> None:
    names = ["hub:a/gated:train", "hub:a/missing:train", "hub:a/tagged:train@v9", "hub:a/odd:train"]
    script = (
        "import sys\n"
        "from sipo_pl.data.hub import read_hub\n"
        "for name in sys.argv[1:]:\n"
        "    try: list(read_hub(name))\n"
        "    except Exception as error: print(error)\n"
    )

    def said(endpoint: str, *asked: str) -> list[str]:
        plain = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path), "NO_PROXY": "*"}
        command = [sys.executable, "-c", script, *asked]
        result = subprocess.run(
            command, env={**environment(), **plain}, capture_output=True, text=True, timeout=60, check=True
        )
        return result.stdout.splitlines()

    gated, missing, tagged, odd = said(refusing, *names)
    assert gated == "hub:a/gated:train: gated; accept its terms on the hub, then `hf auth login`"
    assert missing == "hub:a/missing:train: no data set 'a/missing' on the hub, or a private one (`hf auth login`)"
    assert tagged == "hub:a/tagged:train@v9: a/tagged has no revision 'v9'"
    assert odd.startswith("hub:a/odd:train: the hub refused: ")
    start = time.monotonic()
    (unreached,) = said("http://127.0.0.1:9", "hub:a/b:train")
    assert unreached.startswith("hub:a/b:train: not in the local cache, and the hub is out of reach: ")
    assert time.monotonic() - start < 30  # an import of datasets, not a row of retries
