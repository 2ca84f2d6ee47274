import gzip
import json
from pathlib import Path

import pytest

from sipo_pl.data.checks import number_field
from sipo_pl.data.readers import read_all, read_rows
from sipo_pl.messages.errors import UserError

ROWS = [{"prompt": "a", "score": 1}, {"prompt": "é\u2028b", "score": 2.5}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
CUT_SHORT = gzip.compress(LINES.encode() * 99, mtime=0)[:-9]  # of no time, as it is in a test's name


def write(path: Path) -> Path:
    if path.name.endswith(".jsonl"):
        path.write_text(LINES, encoding="utf-8")
    elif path.name.endswith(".gz"):
        path.write_bytes(gzip.compress(LINES.encode()))
    elif path.name.endswith(".json"):
        path.write_text(json.dumps(ROWS))
    else:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    return path


@pytest.mark.parametrize(
    ("name", "second"),
    [
        ("x.jsonl", "x.jsonl:2"),
        ("x.JSONL.gz", "x.JSONL.gz:2"),
        ("x.json", "x.json: row 2"),
        ("x.parquet", "x.parquet: row 2"),
    ],
)
def test_every_format_gives_the_same_rows_and_says_where(tmp_path: Path, name: str, second: str) -> None:
    path = tmp_path / name
    if name == "x.JSONL.gz":
        path.write_bytes(gzip.compress(LINES.encode()))
    else:
        write(path)
    found = list(read_rows(path))
    assert [row for _, row in found] == ROWS
    assert found[1][0] == f"{tmp_path}/{second}"


def test_blank_lines_carriage_returns_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}')
    assert list(read_rows(path)) == [(f"{path}:1", {"a": 1}), (f"{path}:3", {"a": 2})]


def test_cells_of_csv_are_text_that_is_read_as_numbers_where_numbers_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b'\xef\xbb\xbfprompt,kind\r\n"two\r\nlines, quoted ""so""",1.5\r\n\r\nplain,x\r\n')
    first, second = read_rows(path)
    assert first == (f"{path}:2", {"prompt": 'two\r\nlines, quoted "so"', "kind": "1.5"})
    assert second[0] == f"{path}:5"
    assert number_field(first, "kind") == 1.5
    with pytest.raises(UserError, match=r"x\.csv:5: key 'kind': expected a number, found the text \"x\""):
        number_field(second, "kind")


def test_long_cells_of_csv_are_read(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(f"prompt\n{'a' * 200_000}\n")
    assert len(next(read_rows(tmp_path / "x.csv"))[1]["prompt"]) == 200_000


def test_files_follow_one_another(tmp_path: Path) -> None:
    paths = [write(tmp_path / "x.jsonl"), write(tmp_path / "y.json")]
    assert [row for _, row in read_all(paths)] == ROWS + ROWS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b'{"a": 1}\n{"a": \n', r"x\.jsonl:2: not JSON: Expecting value at column 6"),
        ("x.jsonl", b'{"a": 1}\n[1]\n', r"x\.jsonl:2: expected an object, found list"),
        ("x.jsonl", b'{"a": 1}\n\n{"a": "\xff"}\n', r"x\.jsonl:3: not UTF-8 text"),
        ("x.jsonl", b"", r"x\.jsonl: holds no rows"),
        ("x.jsonl", b"\n \n", r"x\.jsonl: holds no rows"),
        ("x.jsonl.gz", b'{"a": 1}\n', r"x\.jsonl\.gz: cannot be read: Not a gzipped file"),
        ("x.jsonl.gz", CUT_SHORT, r"x\.jsonl\.gz: cannot be read( behind .*:\d+)?: Compressed file ended"),
        ("x.json", b"[]", r"x\.json: holds no rows"),
        ("x.json", b'[{"a": 1}, 3]', r"x\.json: row 2: expected an object, found int"),
        ("x.json", b'{"a": 1}', r"x\.json: expected a list of objects, found dict"),
        ("x.json", b'[{"a": 1},\n{"a" 2}]', r"x\.json:2: not JSON: Expecting ':' delimiter at column 6"),
        (
            "x.json",
            b'{"a": 1}\n{"a": 2}\n',
            r"x\.json:2: not JSON: Extra data at column 1; one object a line is \.jsonl",
        ),
        ("x.json", b"\xff", r"x\.json:1: not UTF-8 text"),
        ("x.json", b'[{"a": 1},\n{"b": "\xe9"}]', r"x\.json:2: not UTF-8 text"),
        ("x.json", '[{"a": 1}]'.encode("utf-16"), r"x\.json:1: not UTF-8 text but UTF-16, by its byte order mark"),
        ("x.json", b"[" * 99_999, r"x\.json: nested too deeply"),
        ("x.json", b'[{"a": "\\ud83d"}]', r"x\.json: not Unicode text: a lone surrogate"),
        ("x.json", b'[{"a": 1, "b": {"c": 1, "c": 2}}]', r"x\.json: key 'c' stands in an object twice"),
        ("x.jsonl", '{"a": 1}\n'.encode("utf-16"), r"x\.jsonl:1: not UTF-8 text but UTF-16, by its byte order mark"),
        ("x.jsonl", '{"a": 1}\n'.encode("utf-16-le"), r"x\.jsonl:1: not UTF-8 text: a NUL at character 2"),
        ("x.jsonl", '{"a": 1}\n{"a": "é"}\n'.encode("latin-1"), r"x\.jsonl:2: not UTF-8 text"),
        ("x.jsonl", b'{"a": 1}\n{"a": ' + b"[" * 99_999, r"x\.jsonl:2: nested too deeply"),
        ("x.jsonl", b'{"a": 1}\n{"a": ' + b"9" * 5000 + b"}", r"x\.jsonl:2: Exceeds the limit \(4300 digits\)"),
        ("x.jsonl", b'{"a": 1}\n{"a": 1, "a": 2}\n', r"x\.jsonl:2: key 'a' stands in an object twice"),
        ("x.csv", "prompt,kind\na,1\n".encode("utf-16"), r"x\.csv:1: not UTF-8 text but UTF-16"),
        ("x.csv", "prompt,kind\na,1\n".encode("utf-16-le"), r"x\.csv:1: not UTF-8 text: a NUL"),
        ("x.csv", 'prompt,kind\na,1\n"é",2\n'.encode("latin-1"), r"x\.csv:3: not UTF-8 text"),
        ("x.csv", b'a,b\n1,2\n"3,4\n5,6\n', r"x\.csv:3: not CSV: unexpected end of data"),
        ("x.parquet", b"text", r"x\.parquet: not parquet"),
        ("x.txt", b"a\n1\n", r"x\.txt: unknown format; known: \.jsonl, \.jsonl\.gz, \.json, \.parquet, \.csv"),
        ("x.csv", b"", r"x\.csv: holds no rows"),
        ("x.csv", b"prompt,kind\n", r"x\.csv: holds no rows"),
        ("x.csv", b"why?,3\nhow?,4\n", r"x\.csv:1: expected a header row of distinct column names, found '3'"),
        ("x.csv", b"a,b,a\n1,2,3\n", r"x\.csv:1: expected a header row of distinct column names, found 'a'"),
        ("x.csv", b"a,,b\n1,2,3\n", r"x\.csv:1: expected a header row of distinct column names, found ''"),
        ("x.csv", b'a,b\n"1\n2",3\n4\n', r"x\.csv:4: expected 2 cells, as in the header, found 1"),
        ("x.csv", b'a,b\n"1"2,3\n', r"x\.csv:2: not CSV: "),
        ("x.csv", b"a\n\xff\n", r"x\.csv:2: not UTF-8 text"),
    ],
)
def test_a_file_that_cannot_be_read_says_where_and_why(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        list(read_rows(tmp_path / name))


def test_a_value_of_parquet_that_cannot_be_read_says_row_and_column(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    texts = pyarrow.array([b"good", b"\xff\xfe"]).view(pyarrow.utf8())  # as other writers leave it
    parquet.write_table(pyarrow.table({"n": [1, 2], "text": texts}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match=r"x\.parquet: row 2: key 'text': cannot be read: .*utf-8"):
        list(read_rows(tmp_path / "x.parquet"))


def test_byte_order_marks_of_files_that_were_joined_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\n' * 2)
    assert [row for _, row in read_rows(tmp_path / "x.jsonl")] == [{"a": 1}, {"a": 1}]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.jsonl: no such file"):
        list(read_rows(tmp_path / "train.jsonl"))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").mkdir()
    with pytest.raises(UserError, match=r"x\.jsonl: cannot be read"):
        list(read_rows(tmp_path / "x.jsonl"))
