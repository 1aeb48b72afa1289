"""CSV and TSV: each cell is read as it is in the file, or the file is refused with the number of the line."""

import csv
import itertools
import random

import pandas as pd
import pytest

from ftlab.data import delimited, streams, tables
from ftlab.errors import BadInput


def rows_of(frame: pd.DataFrame) -> list[list]:
    return frame.astype(object).where(frame.notna(), None).to_numpy().tolist()


def read(path, content: str | bytes) -> list[list] | str:
    """The rows of a file with this content, or why it is refused: the same for every number of rows at a time."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = [whole(path), *(in_pieces(path, size) for size in (1, 3))]
    refused = [isinstance(one, str) for one in found]
    assert len(set(refused)) == 1, found
    if refused[0]:
        assert all("\n" not in one and one.startswith(str(path)) for one in found)
    else:
        assert all(one == found[0] for one in found)
    return found[0]


def whole(path) -> list[list] | str:
    try:
        return rows_of(tables.read_table(path, []))
    except BadInput as problem:
        return str(problem)


def in_pieces(path, size: int) -> list[list] | str:
    try:
        first = next(tables.csv_chunks(path, 1)).columns[0]
        return [row for part in streams.chunks(str(path), first, rows=size) for row in rows_of(part)]
    except BadInput as problem:
        return str(problem)


HEADS = {".csv": "text,label\n", ".tsv": "text\tlabel\n"}


# --- CSV -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ("a,b\nc,d\n", [["a", "b"], ["c", "d"]]),
        ("a,b\nc,d", [["a", "b"], ["c", "d"]]),
        ("a,b\r\nc,d\r\n", [["a", "b"], ["c", "d"]]),
        ('"a, b","c ""d"" e"\n', [["a, b", 'c "d" e']]),
        ('"a\nb\r\nc\rd",e\n', [["a\nb\r\nc\rd", "e"]]),
        ('a 5" disk,b\n', [['a 5" disk', "b"]]),
        ('a "good" one,b\n', [['a "good" one', "b"]]),
        (' "a" ,b \n', [[' "a" ', "b "]]),
        ('"",b\n,\n', [[None, "b"], [None, None]]),
        ("NaN,None\nnull,NA\n", [["NaN", "None"], ["null", "NA"]]),
        ("a\u2028b,c\x85d\x0be\n", [["a\u2028b", "c\x85d\x0be"]]),
        ("a,b\n\nc,d\n", [["a", "b"], [None, None], ["c", "d"]]),
        ("a,b\n  \r\n\nc,d\n", [["a", "b"], [None, None], [None, None], ["c", "d"]]),
        ("a,b\n\n\n  \n", [["a", "b"]]),
        ("\na,b\n", [[None, None], ["a", "b"]]),
    ],
)
def test_a_csv_is_read_as_rfc_4180_has_it(tmp_path, content, rows):
    assert read(tmp_path / "mine.csv", HEADS[".csv"] + content) == rows


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('a,b\n"c,d\ne,f\n', "(line 3: a quote opens a cell there and is never closed)"),
        ('a,b\n"c,d\n"e,f\n', "(line 3: a cell in quotes goes on after its closing quote"),
        ('a,b\n"she said \\"no\\"",d\n', '(line 3: a cell in quotes goes on after its closing quote; write a quote'),
        ('"a" ,b\n', "(line 2: a cell in quotes goes on"),
        ("a,b\nc\n", "(expected 2 fields in line 3, saw 1)"),
        ("a,b\nc,d,\n", "(expected 2 fields in line 3, saw 3)"),
        ('"two\nlines",b\nc, d,e\n', "(expected 2 fields in line 4, saw 3)"),
        ("a\rb,c\n", "(line 2: a carriage return stands in a cell without quotes"),
        ("a,b\nc,d\0\n", "line 3, has the byte 0, which no text has; remove it"),
    ],
)  # fmt: skip
def test_a_csv_that_cannot_be_understood_is_refused_with_the_line(tmp_path, content, said):
    assert said in read(tmp_path / "mine.csv", HEADS[".csv"] + content)


def test_the_blank_rows_of_one_column_are_rows_up_to_the_last(tmp_path):
    for name in ("mine.csv", "mine.tsv"):
        assert read(tmp_path / name, 'text\na\n\n""\n \nb\n\n') == [["a"], [None], [None], [" "], ["b"], [None]]


def test_a_cell_longer_than_pythons_own_bound_is_read(tmp_path):
    long = "word " * 100_000
    assert read(tmp_path / "mine.csv", f'text,label\n"{long}",a\n') == [[long, "a"]]


def test_a_quote_that_is_never_closed_does_not_take_all_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited, "LONGEST", 1000)
    said = read(tmp_path / "mine.csv", 'text,label\n"a,b\n' + "c,d\n" * 1000)
    assert "line 2: a cell of more than 1,000 characters; is there a quote that is never closed?" in said


# --- the header ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("suffix", HEADS)
def test_a_column_whose_name_stands_twice_is_refused(tmp_path, suffix):
    separator = HEADS[suffix][4]
    said = read(tmp_path / f"mine{suffix}", separator.join(["text", "label", "text"]) + "\n" + separator.join("abc"))
    assert "has two columns 'text'; give each column a name of its own" in said


def test_columns_without_a_name_are_numbered_as_pandas_does(tmp_path):
    (tmp_path / "mine.csv").write_text(",text,label,\n0,a,b,\n", encoding="utf-8")
    frame = tables.read_table(tmp_path / "mine.csv", ["text", "label"])
    assert list(frame.columns) == ["Unnamed: 0", "text", "label", "Unnamed: 3"]
    assert rows_of(frame) == [["0", "a", "b", None]]


@pytest.mark.parametrize("header", ["\n", " , \n", "\n\n"])
def test_a_first_line_that_names_nothing_is_told(tmp_path, header):
    said = read(tmp_path / "mine.csv", header + "text,label\na,b\n")
    assert "cannot be read as csv (the first line is blank; expected the names of the columns)" in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("text;label\na;b\n", "it has text;label; its columns seem to be separated by semicolons; a .csv file takes"),
        ("text\tlabel\na\tb\n", "its columns seem to be separated by tabs"),
        ("text ,label\na,b\n", "it has 'text ', label; name the right ones with"),
        (f"{'a film ' * 30},bad\nb,good\n", "a film a film a..., bad; name the right ones"),
        (",".join(map(str, range(50))) + "\n", "18, 19, ...; name"),
    ],
    ids=["semicolons", "tabs", "spaces", "no header", "many"],
)
def test_a_header_that_lacks_a_column_is_shown_so_that_it_can_be_seen_why(tmp_path, content, said):
    (tmp_path / "mine.csv").write_text(content, encoding="utf-8")
    with pytest.raises(BadInput) as raised:
        tables.read_table(tmp_path / "mine.csv", ["text", "label"])
    assert said in str(raised.value)
    assert len(str(raised.value)) < 500


# --- line ends and encodings ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("suffix", HEADS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["Unix", "Windows", "old Mac"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["", "byte order mark"])
def test_line_ends_of_any_system_are_line_ends(tmp_path, suffix, end, mark):
    content = (HEADS[suffix] + "a{0}b\nc{0}d\n".format(HEADS[suffix][4])).replace("\n", end)
    assert read(tmp_path / f"mine{suffix}", mark + content.encode()) == [["a", "b"], ["c", "d"]]


def test_a_file_in_utf_16_is_told_to_be_saved_anew(tmp_path):
    said = read(tmp_path / "mine.csv", "text,label\na,b\n".encode("utf-16"))
    assert said.endswith("this looks like UTF-16: save it as UTF-8")


# --- TSV -----------------------------------------------------------------------------------------------------------
STRAY = ['"every film\tbad', "a film\tgood", 'he said "no\tbad', '"this one\tgood', '"so" he said\tbad', '5"\tgood']


def test_quotes_that_open_nothing_are_text_in_a_tsv_and_no_row_is_lost(tmp_path):
    for lines in itertools.islice(itertools.permutations(STRAY), 0, None, 11):
        found = read(tmp_path / "mine.tsv", "text\tlabel\n" + "\n".join(lines) + "\n")
        if isinstance(found, str):  # 5" may close the quote that opens an earlier line
            assert "each of these lines may be a row" in found
            assert lines.index(STRAY[5]) > min(lines.index(STRAY[0]), lines.index(STRAY[3]))
            continue
        assert found == [line.split("\t") for line in lines]


@pytest.mark.parametrize("far", [1, 30, 200])
def test_stray_quotes_far_apart_are_text(tmp_path, far):
    lines = ["plain\tgood"] * far
    lines = ['"a film\tbad', *lines, '"another\tbad', *lines, 'the "last\tgood']
    assert read(tmp_path / "mine.tsv", "\n".join(["text\tlabel", *lines])) == [line.split("\t") for line in lines]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ('"a\tb"\tc\n', [["a\tb", "c"]]),
        ('"a ""b"""\tc\n', [['a "b"', "c"]]),
        ('"a"\t"c"\n', [["a", "c"]]),
        ('"a\nb"\tc\n', [["a\nb", "c"]]),
        ('c\t"a\nb"\n', [["c", "a\nb"]]),
        ('"a\n""b""\n\nc"\td\ne\tf\n', [['a\n"b"\n\nc', "d"], ["e", "f"]]),
        ('"a\tb\nc"\t"d"\n', [["a\tb\nc", "d"]]),  # all cells are quoted
        ('"a\rb"\tc\n', [["a\rb", "c"]]),
        ('""\tc\n"\td\n', [[None, "c"], ['"', "d"]]),
        ("a\tb\n\nc\td\n\n", [["a", "b"], [None, None], ["c", "d"]]),
        ("\u2028\ta\n", [["\u2028", "a"]]),
    ],
)
def test_cells_that_begin_and_end_with_a_quote_are_quoted_in_a_tsv(tmp_path, content, rows):
    assert read(tmp_path / "mine.tsv", HEADS[".tsv"] + content) == rows


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            'a\tb\n"c\td\ne"\tf\n',
            "(line 3: the quote there may open a cell that ends in line 4, and each of these lines",
        ),
        ('"a\nb\tc\n', "(expected 2 fields in line 2, saw 1)"),
        ('"a" b\n', "(expected 2 fields in line 2, saw 1)"),
        ('"a\nb "c" d\te\n', "(expected 2 fields in line 2, saw 1)"),
        ("a\tb\tc\n", "(expected 2 fields in line 2, saw 3)"),
        ("a\rb\tc\n", "(line 2: a carriage return stands in a cell without quotes"),
    ],
)
def test_a_tsv_that_can_be_read_in_two_ways_or_in_none_is_refused_with_the_line(tmp_path, content, said):
    assert said in read(tmp_path / "mine.tsv", HEADS[".tsv"] + content)


def test_a_header_in_quotes_says_that_all_quotes_of_a_tsv_are_quotes(tmp_path):
    head = '"text"\t"label"\n'
    assert read(tmp_path / "mine.tsv", head + 'a\tb\n"c\td\ne"\tf\n') == [["a", "b"], ["c\td\ne", "f"]]
    assert "line 2: a quote opens a cell there" in read(tmp_path / "mine.tsv", head + '"c\td\n')
    assert read(tmp_path / "mine.tsv", '"text"\n"a\nb"\n') == [["a\nb"]]


def test_a_table_of_three_columns_tells_quoted_tabs_from_quotes_around_one(tmp_path):
    content = 'a\tb\tc\n"x\ty"\tz\n"x\ty"\tz\tw\n'
    assert read(tmp_path / "mine.tsv", content.replace('"x\ty"\tz\tw\n', "")) == [['"x', 'y"', "z"]]
    assert read(tmp_path / "mine.tsv", content.replace('"x\ty"\tz\n', "")) == [["x\ty", "z", "w"]]


# --- both readers, and what is written -----------------------------------------------------------------------------
PIECES = ["a", "b", '"', '""', " ", "\t", ",", "\n", "\r\n", "\r", "\u2028", "\x85", 'x"y', '"q"']


def nasty_rows(seed: int) -> list[list[str]]:
    rng = random.Random(seed)
    columns = rng.randint(1, 3)
    return [
        ["".join(rng.choices(PIECES, k=rng.randint(0, 4))) for _ in range(columns)] for _ in range(rng.randint(1, 5))
    ]


@pytest.mark.parametrize("suffix", HEADS)
def test_both_readers_give_the_same_rows_of_any_file_or_both_refuse(tmp_path, suffix):
    answers = {str: 0, list: 0}
    for seed in range(100):
        rows = nasty_rows(seed)
        separator = HEADS[suffix][4]
        lines = [separator.join(f"c{place}" for place in range(len(rows[0]))), *map(separator.join, rows)]
        answers[type(read(tmp_path / f"mine{suffix}", "\n".join(lines)))] += 1  # `read` compares them
    assert min(answers.values()) > 8


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL], ids=["as needed", "all"])
@pytest.mark.parametrize("suffix", HEADS)
def test_what_pandas_writes_is_read_as_it_was_or_refused(tmp_path, suffix, quoting):
    same = 0
    for seed in range(100):
        # Python before 3.13 does not quote a carriage return, which then reads as a part of the line end.
        rows = [[cell.replace("\r", "") for cell in row] for row in nasty_rows(seed)]
        frame = pd.DataFrame(rows, columns=[f"c{place}" for place in range(len(rows[0]))])
        frame.to_csv(tmp_path / f"mine{suffix}", index=False, sep=HEADS[suffix][4], quoting=quoting)
        found = read(tmp_path / f"mine{suffix}", (tmp_path / f"mine{suffix}").read_bytes())
        if isinstance(found, str):
            assert suffix == ".tsv"
            assert quoting == csv.QUOTE_MINIMAL
            continue
        assert found == [[cell or None for cell in row] for row in rows]
        same += 1
    assert same > 40


@pytest.mark.parametrize("suffix", streams.OUTPUT_TYPES)
def test_what_is_written_is_read_back_whatever_stands_in_it(tmp_path, suffix):
    path = tmp_path / f"mine{suffix}"
    for seed in range(100):
        rows = nasty_rows(seed)
        frame = pd.DataFrame(rows, columns=[f"c{place}" for place in range(len(rows[0]))], dtype=object)
        with streams.writer(path) as put:
            for start in range(0, len(frame), 2):
                put(frame.iloc[start : start + 2])
        found = whole(path)
        assert found == (rows if suffix == ".jsonl" else [[cell or None for cell in row] for row in rows])


def test_a_long_file_with_a_stray_quote_in_each_row_is_read_in_no_time(tmp_path):
    lines = [f'"film {row}\tsaid "no' for row in range(30_000)]
    (tmp_path / "mine.tsv").write_text("\n".join(["text\tlabel", *lines]), encoding="utf-8")
    assert len(tables.read_table(tmp_path / "mine.tsv", [])) == 30_000
