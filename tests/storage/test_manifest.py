import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipo_pl.messages.errors import UserError
from sipo_pl.storage.files import atomic_path, sweep
from sipo_pl.storage.hash_memory import file_hash
from sipo_pl.storage.hashes import content_hash, same_hash
from sipo_pl.storage.json_lines import read_json, read_jsonl, write_json, write_jsonl
from sipo_pl.storage.lock import lock
from sipo_pl.storage.manifest import Manifest, input_hash, open_stage

KEYS = {"beta": 0.1, "template": {"kind": "plain", "system": None}}
INPUTS = {"prepare": "0" * 64}


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def run_and_kill(code: str, *arguments: Path) -> None:
    """Run Python code that kills itself."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)], check=False)
    assert done.returncode == -signal.SIGKILL


# files that appear whole or not at all


def test_a_kill_before_the_rename_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"old": 1}])
    code = """
        import os, signal, sys
        from pathlib import Path
        from sipo_pl.storage.json_lines import write_jsonl
        def rows():
            yield {"new": 1}
            os.kill(os.getpid(), signal.SIGKILL)
        write_jsonl(Path(sys.argv[1]), rows())
    """
    run_and_kill(code, path)
    assert read_jsonl(path) == [{"old": 1}]
    assert visible(tmp_path) == ["rows.jsonl"]
    write_jsonl(path, [{"new": 2}])  # what the dead process left is in nobody's way
    assert read_jsonl(path) == [{"new": 2}]


def test_a_kill_before_the_rename_leaves_no_folder(tmp_path: Path) -> None:
    code = """
        import os, signal, sys
        from pathlib import Path
        from sipo_pl.storage.files import atomic_path
        with atomic_path(Path(sys.argv[1])) as aside:
            aside.mkdir()
            (aside / "half").write_text("x")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    run_and_kill(code, tmp_path / "adapter")
    assert visible(tmp_path) == []


def test_an_exception_leaves_the_old_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.json"
    write_json(path, {"old": 1})

    def broken() -> None:
        with atomic_path(path) as aside:
            aside.write_text("half")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        broken()
    assert read_json(path) == {"old": 1}
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_replaces_a_folder_whole(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    for name in ("old", "new"):
        with atomic_path(folder) as aside:
            aside.mkdir()
            (aside / name).write_text(name)
    assert visible(folder) == ["new"]
    assert list(tmp_path.iterdir()) == [folder]


# JSON and JSONL

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(st.lists(st.dictionaries(TEXTS, TEXTS | st.integers() | st.none() | st.lists(TEXTS), max_size=3), max_size=4))
def test_rows_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    assert write_jsonl(path, rows) == len(rows)
    assert read_jsonl(path) == rows


def test_a_line_break_inside_a_text_is_no_new_line(tmp_path: Path) -> None:
    rows = [{"text": "a\nb\r\nc\u2028d\x85e\x0cf"}, {"text": "👍 שלום"}]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert read_jsonl(tmp_path / "rows.jsonl") == rows


def test_files_made_elsewhere_may_hold_blank_lines_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n  \n{"a": "\\ud83d\\udc4d"}')
    assert read_jsonl(path, ["a"]) == [{"a": 1}, {"a": "👍"}]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"prompt": "x"', "not JSON: Expecting ',' delimiter at column"),
        (b'{"prompt": "\xff"}', "not UTF-8 text"),
        (rb'{"prompt": "cut \uD83D"}', "not Unicode text: a lone surrogate"),
        (b'["prompt"]', "expected an object, found list"),
        (b'{"promt": "x"}', r"no key 'prompt'; did you mean 'promt'\?"),
        (b"{}", "no key 'prompt'$"),
    ],
)
def test_a_malformed_row_is_named_by_file_line_and_key(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"prompt": "fine"}\n\n' + line + b"\n")
    with pytest.raises(UserError, match=rf"rows\.jsonl:3: {message}"):
        read_jsonl(path, ["prompt"])


def test_missing_and_malformed_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.jsonl: no such file"):
        read_jsonl(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match=r"none\.json: no such file"):
        read_json(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{\n,")
    with pytest.raises(UserError, match=r"bad\.json: not JSON: .*line 2"):
        read_json(tmp_path / "bad.json")


def test_equal_values_have_equal_hashes() -> None:
    assert content_hash({"a": 1, "b": [1, "é"]}) == content_hash({"b": [1, "é"], "a": 1})
    assert content_hash({"a": 1}) != content_hash({"a": "1"})
    assert content_hash([1, 2]) != content_hash([2, 1])


# stage folders


def open_it(folder: Path, keys: dict[str, Any] = KEYS, overwrite: bool = False, **changed: Any) -> Manifest:
    arguments: dict[str, Any] = {"stage": "filter", "inputs": INPUTS, "seed": 1, **changed}
    return open_stage(folder, keys=keys, overwrite=overwrite, **arguments)


def finish(folder: Path, manifest: Manifest) -> None:
    write_jsonl(folder / "kept.jsonl", [{"a": 1}])
    manifest.finish(folder, [folder / "kept.jsonl"], rows=1, note="x")


def test_a_stage_is_begun_gone_on_with_and_found_complete(tmp_path: Path) -> None:
    folder = tmp_path / "filter"
    begun = open_it(folder)
    assert (begun.complete, begun.stage, begun.seed) == (False, "filter", 1)
    assert set(begun.versions) >= {"sipo_pl", "torch"}
    again = open_it(folder)
    assert again == begun
    finish(folder, again)
    done = open_it(folder)
    assert done.complete
    assert done.rows == 1
    assert done.notes == {"note": "x"}
    assert done.files == {"kept.jsonl": file_hash(folder / "kept.jsonl")}


def test_a_stage_made_by_other_settings_names_the_differences_and_stays(tmp_path: Path) -> None:
    folder = tmp_path / "filter"
    finish(folder, open_it(folder))
    other = {"beta": 0.5, "template": {"kind": "chat", "system": None}, "new": [1]}
    with pytest.raises(UserError) as raised:
        open_it(folder, other, inputs={"prepare": "1" * 64})
    message = str(raised.value)
    assert "beta: 0.1 there, 0.5 asked" in message
    assert 'template.kind: "plain" there, "chat" asked' in message
    assert "new: null there, [1] asked" in message
    assert "input prepare" in message
    assert "--overwrite" in message
    assert "system" not in message
    assert open_it(folder).complete


def test_a_folder_of_another_stage_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "filter"
    finish(folder, open_it(folder))
    with pytest.raises(UserError, match="stage: 'filter' there, 'combine' asked"):
        open_it(folder, stage="combine")


def test_settings_may_change_while_nothing_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "filter"
    open_it(folder)
    assert open_it(folder, {"beta": 0.5}).keys == {"beta": 0.5}
    (folder / "unit-00000.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match=r"beta: 0\.5 there, 0\.1 asked"):
        open_it(folder)


def test_overwrite_makes_a_stage_anew(tmp_path: Path) -> None:
    folder = tmp_path / "filter"
    finish(folder, open_it(folder))
    fresh = open_it(folder, {"beta": 0.5}, overwrite=True)
    assert not fresh.complete
    assert visible(folder) == ["manifest.json"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_holds_something_else_is_never_touched(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="remove it or choose another"):
        open_it(tmp_path, overwrite=overwrite)
    assert visible(tmp_path) == ["thesis.tex"]


@pytest.mark.parametrize("content", ['{"name": "a web app"}', "[]"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_another_programs_manifest_is_never_touched(tmp_path: Path, content: str, overwrite: bool) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=r"manifest\.json: not a manifest of this program; remove") as raised:
        open_it(tmp_path, overwrite=overwrite)
    assert "--overwrite" not in str(raised.value)  # it would not help
    assert (tmp_path / "manifest.json").read_text() == content


def test_keys_are_compared_as_they_are_read_back(tmp_path: Path) -> None:
    keys = {"points": {"a": (0.2, 0.8)}, "path": Path("x"), "share": 0.1 + 0.2}
    open_it(tmp_path / "sample", keys)
    assert open_it(tmp_path / "sample", keys).keys["points"] == {"a": [0.2, 0.8]}


def test_the_hash_of_an_input_follows_its_content(tmp_path: Path) -> None:
    file, plain, stage = tmp_path / "a.jsonl", tmp_path / "adapter", tmp_path / "filter"
    file.write_text("{}")
    plain.mkdir()
    (plain / "weights").write_text("1")
    finish(stage, open_it(stage))
    before = [input_hash(path, "make") for path in (file, plain, stage)]
    assert before == [input_hash(path, "make") for path in (file, plain, stage)]
    plain.rename(tmp_path / "moved")
    assert input_hash(tmp_path / "moved", "make") == before[1]
    file.write_text("{} ")
    (tmp_path / "moved" / "weights").write_text("2")
    open_it(stage, overwrite=True)
    write_jsonl(stage / "kept.jsonl", [{"a": 2}])
    open_it(stage).finish(stage, [stage / "kept.jsonl"])
    after = [input_hash(path, "make") for path in (file, tmp_path / "moved", stage)]
    assert all(old != new for old, new in zip(before, after, strict=True))


def test_an_input_that_is_missing_or_not_complete_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="filter: no such input; `sipo_pl filter` makes it"):
        input_hash(tmp_path / "filter", "sipo_pl filter")
    open_it(tmp_path / "filter")
    with pytest.raises(UserError, match="filter: not complete; `sipo_pl filter` goes on with it"):
        input_hash(tmp_path / "filter", "sipo_pl filter")


# locks

HOLD = """
    import sys, time
    from pathlib import Path
    from sipo_pl.storage.lock import lock
    with lock(Path(sys.argv[1])):
        print("held", flush=True)
        time.sleep(60)
"""


def test_a_lock_is_held_by_a_live_process_and_freed_by_a_dead_one(tmp_path: Path) -> None:
    folder = tmp_path / "align"
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLD), str(folder)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"align: in use by process {holder.pid}"), lock(folder):
            pass
        holder.kill()
    with lock(folder):
        pass
    with lock(folder), pytest.raises(UserError, match=f"in use by process {os.getpid()}"), lock(folder):
        pass


def test_manifests_are_plain_json(tmp_path: Path) -> None:
    open_it(tmp_path / "filter")
    value = json.loads((tmp_path / "filter" / "manifest.json").read_text())
    assert value["stage"] == "filter"
    assert value["keys"] == KEYS


# what goes wrong on disks


def test_a_file_that_cannot_be_written_is_one_line_and_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"old": 1}])
    code = """
        import resource, sys
        from pathlib import Path
        from sipo_pl.storage.json_lines import write_jsonl
        from sipo_pl.messages.errors import UserError
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            write_jsonl(Path(sys.argv[1]), [{"new": "x" * 5000}])
        except UserError as error:
            print(error)
    """
    words = [sys.executable, "-c", textwrap.dedent(code), str(path)]
    said = subprocess.run(words, check=True, capture_output=True, text=True)
    assert said.stdout == f"{path}: cannot be written: File too large; what was there is as it was\n"
    assert read_jsonl(path) == [{"old": 1}]
    assert [one.name for one in tmp_path.iterdir()] == ["rows.jsonl"]


def test_an_adapter_that_does_not_fit_on_the_disk_is_one_line(tmp_path: Path) -> None:
    code = """
        import resource, sys, torch
        from pathlib import Path
        from sipo_pl.messages.errors import UserError
        from sipo_pl.training.checkpoint_io import AtomicCheckpointIO
        from sipo_pl.engine.lora.adapters import write_adapter
        folder = Path(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))
        factors = {"q_proj": (torch.zeros(4, 4000), torch.zeros(4000, 4))}
        checkpoint = {"weights": torch.zeros(9999)}
        for write, *given in (
            (lambda path: write_adapter(path, factors, base_model="base"), folder / "adapter"),
            (AtomicCheckpointIO().save_checkpoint, checkpoint, folder / "last.ckpt"),
        ):
            try:
                write(*given)
            except UserError as error:
                print(error)
    """
    words = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
    assert said[0].startswith(f"{tmp_path}/adapter: cannot be written: File too large")
    assert said[1].startswith(f"{tmp_path}/last.ckpt: cannot be written")
    assert len(said) == 2
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir(mode=0o500)
    (tmp_path / "file").write_text("")
    folder = tmp_path / ("file" if os.geteuid() == 0 else "shut")  # root may write anywhere
    with pytest.raises(UserError, match=f"{folder}/align: cannot be written: "), lock(folder / "align"):
        pass


def test_what_dead_processes_left_is_swept_and_what_live_ones_write_is_not(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as dead:
        pass
    mine, theirs = tmp_path / f".a.jsonl.{os.getpid()}.tmp", tmp_path / f".a.jsonl.{dead.pid}.tmp"
    old = tmp_path / f"deeper/.adapter.{dead.pid}.old"
    old.mkdir(parents=True)
    for path in (mine, theirs, old / "weights", tmp_path / ".align.lock", tmp_path / "a.1.tmp"):
        path.write_text("1")
    sweep(tmp_path)
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert found == sorted([mine.name, ".align.lock", "a.1.tmp", "deeper/adapter/weights"])


def test_a_changed_file_of_an_input_is_named(tmp_path: Path) -> None:
    stage = tmp_path / "align"
    manifest = open_it(stage)
    for path in (stage / "rows.jsonl", stage / "adapter/weights"):
        path.parent.mkdir(exist_ok=True)
        path.write_text('{"a": 1}\n')
    manifest.finish(stage, [stage / "rows.jsonl", stage / "adapter/weights"])
    (stage / "adapter/weights").write_text('{"a": 3}\n')  # one flipped bit
    message = "adapter/weights: damaged or edited since it was written; `make --overwrite` makes it anew"
    for path in (stage, stage / "adapter"):
        with pytest.raises(UserError, match=message):
            input_hash(path, "make")
    (stage / "adapter/weights").unlink()
    with pytest.raises(UserError, match="adapter/weights: missing; `make --overwrite` makes it anew"):
        input_hash(stage, "make")


@pytest.mark.parametrize("change", [{"format": 2}, {"keys": None}])
def test_a_manifest_of_another_version_is_one_line(tmp_path: Path, change: dict[str, Any]) -> None:
    open_it(tmp_path / "align")
    path = tmp_path / "align/manifest.json"
    text = json.dumps({**read_json(path), **change})
    path.write_text(text)
    with pytest.raises(UserError, match=r"manifest.json: not a manifest of this program"):
        open_it(tmp_path / "align")
    assert path.read_text() == text


def test_a_hash_of_an_older_version_agrees_as_far_as_it_goes() -> None:
    one, two, three = ("1" * 64, "2" * 64, "3" * 64)
    assert same_hash(one, f"{one}+{two}")
    assert same_hash(f"{one}+{two}", one)
    assert not same_hash(f"{one}+{two}", f"{one}+{three}")
    assert not same_hash(one, f"{two}+{one}")
    assert not same_hash("text", "text+more")


def test_a_stage_that_an_older_version_began_goes_on(tmp_path: Path) -> None:
    open_stage(tmp_path, "align", {**KEYS, "model": "1" * 64}, {"base model": "1" * 64}, seed=1)
    (tmp_path / "unit").touch()
    whole = f"{'1' * 64}+{'2' * 64}"
    found = open_stage(tmp_path, "align", {**KEYS, "model": whole}, {"base model": whole}, seed=1)
    assert (found.inputs["base model"], found.keys["model"]) == (whole, whole)
    with pytest.raises(UserError, match="input base model: "):
        open_stage(tmp_path, "align", {**KEYS, "model": whole}, {"base model": whole[:-1] + "3"}, seed=1)


def test_versions_of_a_stage_that_goes_on_are_all_recorded(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    open_stage(tmp_path, "align", KEYS, INPUTS, seed=1)
    (tmp_path / "unit").touch()
    manifest = Manifest.read(tmp_path)
    assert manifest is not None
    torch = manifest.versions["torch"]
    manifest.versions["torch"] = "2.0.1"
    manifest.write(tmp_path)
    for _ in range(2):  # said once
        found = open_stage(tmp_path, "align", KEYS, INPUTS, seed=1)
        assert found.versions["torch"] == f"2.0.1, {torch}"
    found.finish(tmp_path, [])
    assert read_json(tmp_path / "manifest.json")["versions"]["torch"] == f"2.0.1, {torch}"
    assert [one.getMessage() for one in logged.records] == [f"align: begun with torch 2.0.1, goes on with {torch}"]


@pytest.mark.parametrize("text", ["", "{", "\x00", "[" * 100000])
def test_a_manifest_that_nobody_can_read_has_a_way_out(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "stage"
    open_stage(folder, "align", KEYS, INPUTS, seed=1)
    (folder / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=r"manifest\.json: not JSON: .*--overwrite, to make the stage anew"):
        open_stage(folder, "align", KEYS, INPUTS, seed=1)
    assert not open_stage(folder, "align", KEYS, INPUTS, seed=1, overwrite=True).complete
