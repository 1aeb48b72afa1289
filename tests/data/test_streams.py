import csv
import io
import json
import sys
import tracemalloc
import warnings

import pandas as pd
import pytest

from ftlab.data import streams
from ftlab.errors import BadInput

ROWS = [
    {"id": "007", "text": "a film", "note": "NA"},
    {"id": "1", "text": "caf\u00e9, \u201cnoir\u201d \U0001f642", "note": "None"},
    {"id": "2.0", "text": 'she said "no", twice', "note": "a,b"},
    {"id": "", "text": "two\nlines\tand a tab", "note": "true"},
    {"id": "x", "text": "a film", "note": "'"},
    {"id": "y", "text": " kept \r as it is ", "note": "null"},
    {"id": "z", "text": "the last", "note": "-0"},
]


def write(path, rows=ROWS) -> str:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(
                file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",", quoting=csv.QUOTE_ALL
            )
            writer.writeheader()
            writer.writerows(rows)
    return str(path)


def read(file: str, **options) -> list[dict]:
    """All rows of a file, a missing value as an empty text."""
    parts = list(streams.chunks(file, **options))
    return [row for part in parts for row in part.astype(object).where(part.notna(), "").to_dict("records")]


def refusal(file, **options) -> str:
    with pytest.raises(BadInput) as raised:
        list(streams.chunks(str(file), **options))
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_rows_come_as_the_file_has_them_whatever_the_size_of_a_piece(tmp_path, suffix, rows):
    file = write(tmp_path / f"mine{suffix}")
    assert read(file, rows=rows) == ROWS
    assert [len(part) for part in streams.chunks(file, rows=rows)] == [
        min(rows, len(ROWS) - start) for start in range(0, len(ROWS), rows)
    ]


@pytest.mark.parametrize("rows", [1, 2, 100])
def test_a_text_file_has_one_text_a_line(tmp_path, rows):
    file = tmp_path / "mine.TXT"
    file.write_bytes('\ufeffa film, "quoted"\r\n\n  \ncaf\u00e9\tnoir\nno line end'.encode())
    texts = [row["body"] for row in read(str(file), column="body", rows=rows)]
    assert texts == ['a film, "quoted"', "", "  ", "caf\u00e9\tnoir", "no line end"]
    first = next(streams.chunks(str(file), "body", rows=2))
    assert list(first.columns) == ["body"]
    assert first["body"].isna().tolist() == [False, True]


ODD = ["a\u2028b\u2029c", "d\x85e", "f\x0bg\x0ch\x1ci", "", '"', "nan"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["Unix", "Windows", "old Mac"])
def test_nothing_but_a_line_end_ends_a_text(tmp_path, monkeypatch, end):
    piped = "".join(text + end for text in ODD).encode()
    (tmp_path / "mine.txt").write_bytes(piped)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(piped)))
    for file in (str(tmp_path / "mine.txt"), "-"):
        assert [row["text"] for row in read(file, rows=4)] == ODD


def test_a_carriage_return_among_lines_stays_where_it_is(tmp_path):
    (tmp_path / "mine.txt").write_bytes(b"1 %\r2 %\r3 %\nthe end\r\n")
    assert [row["text"] for row in read(str(tmp_path / "mine.txt"))] == ["1 %\r2 %\r3 %", "the end"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["Unix", "Windows", "old Mac"])
def test_an_object_a_line_whatever_ends_it(tmp_path, end):
    (tmp_path / "mine.jsonl").write_bytes(
        "".join(json.dumps({"text": text}, ensure_ascii=False) + end for text in ODD).encode()
    )
    assert [row["text"] for row in read(str(tmp_path / "mine.jsonl"), rows=4)] == ODD


def test_what_comes_through_a_pipe_is_utf_8_whatever_the_locale(monkeypatch):
    piped = "caf\u00e9\nna\u00efve \U0001f642\n".encode()
    for encoding in ("utf-8", "latin-1", "ascii"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(piped), encoding=encoding))
        assert [row["text"] for row in read("-", rows=1)] == ["caf\u00e9", "na\u00efve \U0001f642"]


@pytest.mark.parametrize("piped", [b"", b"a film\nanother\ncaf\xe9\n"], ids=["nothing", "not UTF-8"])
def test_a_pipe_that_cannot_be_used_is_one_sentence(monkeypatch, piped):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(piped)))
    expected = "stdin is not UTF-8 (line 3 has the byte 0xe9)" if piped else "stdin has no rows"
    assert expected in refusal("-")


def test_the_values_of_a_jsonl_file_stay_what_they_are(tmp_path):
    rows = [
        {"text": "a", "n": 12345678901234567, "flag": True, "tags": ["x", {"y": 1}]},
        {"text": None, "n": None, "flag": False, "tags": []},
        {"n": 7, "tags": None},
        {"text": "d", "n": 0.5, "flag": "yes", "tags": 3},
    ]
    file = write(tmp_path / "mine.jsonl", rows)
    for size in (1, 3, 4):
        came = [row for part in streams.chunks(file, rows=size) for row in part.to_dict("records")]
        for row, expected in zip(came, rows, strict=True):
            for name, value in expected.items():
                assert (row[name], type(row[name])) == (value, type(value))
            assert pd.isna(row["text"]) == (expected.get("text") is None)


@pytest.mark.parametrize("size", [1, 2, 100])
def test_later_rows_of_a_jsonl_file_may_lack_their_text(tmp_path, size):
    file = write(tmp_path / "mine.jsonl", [{"text": "a"}, {"text": "b"}, {"n": 1}, {"n": 2}, {}, {}, {"text": "c"}])
    assert [row["text"] for row in read(file, rows=size)] == ["a", "b", "", "", "", "", "c"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", b"", "is empty; expected at least one text"),
        ("empty.jsonl", b"", "is empty"),
        ("empty.txt", b"", "is empty"),
        ("blank.jsonl", b"\n\n", "has no rows; expected at least one text"),
        ("bom.txt", b"\xef\xbb\xbf", None),
        ("header.csv", b"text,n\n", "has no rows"),
        ("other.csv", b"body,n\na,1\n", "has no column 'text'; it has body, n"),
        ("other.csv", b"body,n\n", "has no column 'text'; it has body, n"),
        ("other.jsonl", b'{"body": "a"}\n', "has no column 'text'; it has body"),
        ("object.jsonl", b"{}\n", "has no column 'text'; it has none; name the right one"),
        ("picture.csv", b"\x89PNG\r\n\0\0", "is a binary file; expected text in UTF-8 (csv)"),
        ("picture.jsonl", b"\x89PNG\r\n\0\0", "is a binary file"),
        ("utf16.txt", "a film".encode("utf-16"), "is a binary file"),
        ("list.jsonl", b"[1]\n", "line 1: expected an object"),
        ("turns.jsonl", b'{"text": "a"}\n{"text": ["a", "b"]}\n', "row 2: 'text' is a list; expected a text"),
        ("deep.jsonl", b'{"text": {"body": "a"}}\n', "row 1: 'text' is an object; expected a text"),
        ("half.jsonl", b'{"text": "\\ud83d"}\n', "line 1: half a character"),
        ("table.parquet", b"PAR1", "is not a file type that is read in pieces; expected one of .csv, .tsv"),
        ("none", b"a", "is not a file type that is read in pieces"),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value and " " not in value else "",
)
def test_a_file_that_cannot_be_used_is_one_sentence(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    if message is None:
        assert read(str(tmp_path / name)) == [{"text": ""}]
        return
    said = refusal(tmp_path / name)
    assert message in said
    assert said.startswith(str(tmp_path / name))


def test_a_path_that_is_no_file_is_one_sentence(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    assert f"{tmp_path}/nowhere.csv does not exist; give a .csv" in refusal(tmp_path / "nowhere.csv")
    assert f"{tmp_path}/folder.csv is a folder" in refusal(tmp_path / "folder.csv")
    for path in ("~nobody-at-all/x.csv", "x" * 300 + ".csv"):
        assert "cannot be looked at" in refusal(path)


LATER = {
    "broken.jsonl": (['{"text": "a"}\n'] * 5 + ['{"text": \n'], "line 6: not JSON"),
    "list.jsonl": (['{"text": "a"}\n'] * 5 + ["[]\n"], "line 6: expected an object"),
    "latin.jsonl": (['{"text": "a"}\n'] * 5 + ['{"text": "caf\u00e9"}\n'], "is not UTF-8 (line 6 has the byte 0xe9)"),
    "latin.txt": (["a\n"] * 5 + ["caf\u00e9\n"], "is not UTF-8 (line 6 has the byte 0xe9)"),
    "latin.csv": (  # larger than what is read ahead
        ["text,n\n"] + [f"a,{'1' * 500}\n"] * 1198 + ["caf\u00e9,1\n"],
        "is not UTF-8 (line 1200 has the byte 0xe9)",
    ),
    "long.csv": (
        ["text,n\n"] + ["a,1\n"] * 5 + ["a, film,1\n"],
        "cannot be read as csv (expected 2 fields in line 7, saw 3)",
    ),
    "long.tsv": (["text\tn\n"] + ["a\t1\n"] * 5 + ["a\tfilm\t1\n"], "line 7, saw 3"),
    "quote.csv": (
        ["text,n\n"] + ["a,1\n"] * 5 + ['"never closed,1\n'],
        "cannot be read as csv (line 7: a quote opens a cell there and is never closed)",
    ),
    "short.csv": (["text,n\n"] + ["a,1\n"] * 5 + ["a\n"], "expected 2 fields in line 7, saw 1"),
    "nul.csv": (["text,n\n"] + [f"a,{'1' * 500}\n"] * 1198 + ["a\0,1\n"], "line 1200: a NUL character"),
    "nul.txt": (["a\n"] * 70_000 + ["a\0\n"], "line 70001: a NUL character"),
    "twice.jsonl": (
        ['{"text": "a"}\n'] * 5 + ['{"text": "a", "text": "b"}\n'],
        "line 6: not JSON (the name 'text' stands twice",
    ),
    "nan.jsonl": (['{"text": "a"}\n'] * 5 + ['{"text": NaN}\n'], "line 6: not JSON (JSON has no NaN; write null"),
    "huge.jsonl": (['{"text": "a"}\n'] * 5 + ['{"n": 1e999}\n'], "line 6: not JSON (1e999 is too large"),
}


@pytest.mark.parametrize("name", LATER)
def test_what_is_broken_later_is_told_after_the_rows_before_it(tmp_path, name):
    lines, message = LATER[name]
    (tmp_path / name).write_bytes("".join(lines).encode("latin-1"))
    parts = streams.chunks(str(tmp_path / name), rows=2)
    assert next(parts)["text"].tolist() == ["a", "a"]
    with pytest.raises(BadInput) as raised:
        list(parts)
    assert message in str(raised.value)
    assert str(raised.value).startswith(str(tmp_path / name))
    assert "\n" not in str(raised.value)


def test_a_file_half_read_leaves_the_filters_for_warnings_alone(tmp_path):
    parts = streams.chunks(write(tmp_path / "mine.csv"), rows=2)
    before = list(warnings.filters)
    next(parts)
    assert warnings.filters == before
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        inside = list(warnings.filters)
        assert len(list(parts)) == 3
        assert warnings.filters == inside


@pytest.mark.parametrize("suffix", streams.OUTPUT_TYPES)
def test_what_is_written_reads_back_the_same(tmp_path, suffix):
    rows = pd.DataFrame(ROWS).replace("", None)
    with streams.writer(tmp_path / f"out{suffix}") as put:
        for start in range(0, len(rows), 3):
            put(rows.iloc[start : start + 3])
    assert read(str(tmp_path / f"out{suffix}"), rows=2) == ROWS
    assert [path.name for path in tmp_path.iterdir()] == [f"out{suffix}"]


def test_a_missing_value_is_null_in_jsonl_and_nothing_in_csv(tmp_path):
    rows = pd.DataFrame({"text": ["a", None], "p": [0.5, float("nan")]})
    for suffix in (".jsonl", ".csv"):
        with streams.writer(tmp_path / f"out{suffix}") as put:
            put(rows)
    assert (tmp_path / "out.jsonl").read_text(
        encoding="utf-8"
    ) == '{"text": "a", "p": 0.5}\n{"text": null, "p": null}\n'
    assert (tmp_path / "out.csv").read_text(encoding="utf-8") == "text,p\na,0.5\n,\n"


@pytest.mark.parametrize("suffix", streams.OUTPUT_TYPES)
def test_an_error_leaves_no_file_and_the_older_one_as_it_was(tmp_path, suffix):
    out = tmp_path / "new" / f"out{suffix}"

    def fail():
        with streams.writer(out) as put:
            put(pd.DataFrame(ROWS))
            raise BadInput("row 8 is broken")

    with pytest.raises(BadInput, match="row 8 is broken"):
        fail()
    assert list(out.parent.iterdir()) == []
    out.write_text("older", encoding="utf-8")
    with pytest.raises(BadInput, match="row 8 is broken"):
        fail()
    assert [path.read_text(encoding="utf-8") for path in out.parent.iterdir()] == ["older"]


def test_later_rows_may_lack_columns_in_a_table_and_bring_none(tmp_path):
    with streams.writer(tmp_path / "out.csv") as put:
        put(pd.DataFrame({"text": ["a"], "n": ["1"]}))
        put(pd.DataFrame({"text": ["b"]}))
        put(pd.DataFrame({"n": ["3"], "text": ["c"]}))
    assert (tmp_path / "out.csv").read_text(encoding="utf-8") == "text,n\na,1\nb,\nc,3\n"

    def write_more(name):
        with streams.writer(tmp_path / name) as put:
            put(pd.DataFrame({"text": ["a"]}))
            put(pd.DataFrame({"text": ["b"], "extra": ["x"]}))

    with pytest.raises(BadInput, match=r"more.tsv: later rows have a column 'extra' .* write a .jsonl"):
        write_more("more.tsv")
    assert not (tmp_path / "more.tsv").exists()
    write_more("more.jsonl")
    assert (tmp_path / "more.jsonl").read_text(encoding="utf-8") == '{"text": "a"}\n{"text": "b", "extra": "x"}\n'


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("out.parquet", "is not a file type that can be written; expected one of .csv, .tsv, .jsonl"),
        ("out", "is not a file type that can be written"),
        ("file/out.csv", "cannot be written"),
        ("folder.csv", "is a folder; give the name of a file"),
    ],
)
def test_an_output_that_cannot_be_written_is_one_sentence(tmp_path, where, message):
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "folder.csv").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BadInput) as raised, streams.writer(tmp_path / where) as put:
        put(pd.DataFrame(ROWS))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_stdout_gets_json_lines_in_utf_8_whatever_the_locale(monkeypatch):
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding="ascii"))
    with streams.writer(None) as put:
        put(pd.DataFrame(ROWS[:4]))
        put(pd.DataFrame(ROWS[4:]))
    assert [json.loads(line) for line in out.getvalue().decode().splitlines()] == ROWS


def peak_of_streaming(file: str, out) -> int:
    """The peak memory in bytes while a file is read and written."""
    tracemalloc.start()
    with streams.writer(out) as put:
        for part in streams.chunks(file, rows=200):
            put(part.assign(prediction="good"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".txt"])
def test_memory_does_not_grow_with_the_rows(tmp_path, suffix):
    peaks = {}
    for rows in (200, 2_000, 8_000):  # the first warms up: imports and caches
        file = tmp_path / f"{rows}{suffix}"
        texts = [f"film number {number} was {'very ' * 100} long" for number in range(rows)]
        if suffix == ".txt":
            file.write_text("\n".join(texts), encoding="utf-8")
        else:
            write(file, [{"text": text} for text in texts])
        peaks[rows] = peak_of_streaming(str(file), tmp_path / "out.jsonl")
        assert len((tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()) == rows
    assert peaks[8_000] < 1.2 * peaks[2_000]
    assert peaks[8_000] < 0.5 * (tmp_path / f"8000{suffix}").stat().st_size


def test_the_answers_never_overwrite_what_is_read(tmp_path):
    (tmp_path / "in.csv").write_text("text\na\n", encoding="utf-8")
    with pytest.raises(BadInput) as raised:
        streams.require_writable(tmp_path / "in.csv", str(tmp_path / "in.csv"))
    assert "is the file that is read; give the answers a file of their own" in str(raised.value)
    streams.require_writable(tmp_path / "out.csv", str(tmp_path / "in.csv"))
