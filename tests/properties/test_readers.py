"""Readers: what the usual libraries write is read back row for row, whole or in pieces; what is lost is refused."""

import csv
import io
import json
import math

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from ftlab.data import streams, tables
from ftlab.errors import BadInput
from tests import nightly
from tests.properties import refusals, strategies

ENDS = st.sampled_from(["\n", "\r\n"])


def in_pieces(path, column, rows):
    return [
        row for part in streams.chunks(str(path), column, rows=rows) for row in part.astype(object).to_numpy().tolist()
    ]


def without_missing(cells):
    """The cells with None for each missing value."""
    return [[None if cell is None or cell != cell else cell for cell in row] for row in cells]


@given(
    strategies.tables(strategies.texts), ENDS, st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
)
@example((["text"], [[""], ["a"], [""]]), "\n", csv.QUOTE_MINIMAL)
@example((["text", "label"], [["a\rb", "x"]]), "\r\n", csv.QUOTE_ALL)
def test_a_csv_is_read_back_cell_for_cell_whole_or_in_pieces(tmp_path, table, end, quoting):
    names, cells = table
    path = tmp_path / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        # Python before 3.13 leaves a carriage return unquoted, which no reader can tell from the end of a row.
        bare = any("\r" in cell for row in [names, *cells] for cell in row)
        writer = csv.writer(file, lineterminator=end, quoting=csv.QUOTE_ALL if bare else quoting)
        writer.writerows([names, *cells])
    wanted = [[cell or None for cell in row] for row in cells]
    frame = tables.read_table(path, names)
    assert list(frame.columns) == names
    assert without_missing(frame.astype(object).to_numpy().tolist()) == wanted
    assert without_missing(in_pieces(path, names[0], 2)) == wanted


@given(strategies.tables(strategies.texts), ENDS)
def test_a_tsv_in_quotes_is_read_back_cell_for_cell(tmp_path, table, end):
    names, cells = table
    path = tmp_path / "rows.tsv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t", lineterminator=end, quoting=csv.QUOTE_ALL).writerows([names, *cells])
    wanted = [[cell or None for cell in row] for row in cells]
    assert without_missing(tables.read_table(path, names).astype(object).to_numpy().tolist()) == wanted
    assert without_missing(in_pieces(path, names[0], 3)) == wanted


@given(
    strategies.tables(strategies.texts.map(lambda text: "".join(text.split("\t")).replace("\r", "").replace("\n", "")))
)
def test_a_tsv_without_quoting_is_read_back_or_refused_by_a_line(tmp_path, table):
    """IANA's format: a quote is text, unless it makes the cell one that a spreadsheet would have written."""
    names, cells = table
    assume(not any(cell.startswith('"') for row in cells for cell in row))
    path = tmp_path / "rows.tsv"
    path.write_text("".join("\t".join(row) + "\n" for row in [names, *cells]), encoding="utf-8", newline="")
    wanted = [[cell or None for cell in row] for row in cells]
    assert without_missing(tables.read_table(path, names).astype(object).to_numpy().tolist()) == wanted


@given(strategies.tables(strategies.texts), st.sampled_from([".csv", ".tsv", ".jsonl"]), st.integers(1, 4))
def test_what_the_writer_writes_the_reader_reads(tmp_path, table, suffix, size):
    names, cells = table
    path = tmp_path / f"out{suffix}"
    frame = pd.DataFrame(cells, columns=names, dtype=object)
    with streams.writer(path) as write:
        for start in range(0, len(frame), size):
            write(frame.iloc[start : start + size])
    wanted = cells if suffix == ".jsonl" else [[cell or None for cell in row] for row in cells]
    assert without_missing(tables.read_table(path, names).astype(object).to_numpy().tolist()) == wanted


_json = st.recursive(
    st.one_of(
        strategies.texts, st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none()
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(strategies.texts, inner, max_size=3)),
    max_leaves=6,
)


@given(
    st.lists(st.dictionaries(st.sampled_from(["text", "label", "n"]), _json, min_size=1), min_size=1, max_size=5),
    st.booleans(),
    ENDS,
)
def test_jsonl_is_read_back_value_for_value(tmp_path, rows, ascii_only, end):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(json.dumps(row, ensure_ascii=ascii_only) + end for row in rows), encoding="utf-8", newline=""
    )
    assert list(tables.json_objects(path)) == rows
    names = list(dict.fromkeys(name for row in rows for name in row))
    frame = tables.read_table(path, names)
    assert list(frame.columns) == names
    for row, read in zip(rows, frame.to_dict("records"), strict=True):
        for name in names:
            value = read[name]
            assert (
                (value == row[name] and type(value) is type(row[name]))
                if name in row and row[name] is not None
                else (value is None or value != value)
            )


@given(st.sampled_from(["text", "\u00fc", 'a"b', "x" * 300]), _json, _json, st.booleans())
def test_a_name_that_stands_twice_is_refused_wherever_it_stands(tmp_path, name, one, other, nested):
    path = tmp_path / "rows.jsonl"
    said = f"{{{json.dumps(name)}: {json.dumps(one)}, {json.dumps(name)}: {json.dumps(other)}}}"
    path.write_text((f'{{"text": [{said}]}}' if nested else said) + "\n", encoding="utf-8")
    with pytest.raises(BadInput, match="stands twice") as refused:
        tables.read_table(path, ["text"])
    refusals.one_sentence(refused.value)


@given(strategies.texts, strategies.halves, strategies.texts)
def test_half_a_character_in_jsonl_is_refused(tmp_path, before, half, after):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": before + half + after}) + "\n", encoding="utf-8")
    with pytest.raises(BadInput, match="half a character") as refused:
        tables.read_table(path, ["text"])
    refusals.one_sentence(refused.value)


_cells = {
    pa.string(): st.one_of(strategies.texts, st.none()),
    pa.large_string(): st.one_of(strategies.texts, st.none()),
    pa.int64(): st.one_of(st.integers(-(2**63), 2**63 - 1), st.none()),
    pa.float64(): st.one_of(st.floats(), st.none()),
    pa.bool_(): st.one_of(st.booleans(), st.none()),
    pa.list_(pa.string()): st.one_of(st.lists(strategies.texts, max_size=2), st.none()),
}


@given(st.data(), st.integers(1, 6), st.sampled_from(["none", "snappy", "gzip"]), st.integers(1, 3))
def test_parquet_is_read_back_with_the_values_of_python(tmp_path, data, rows, compression, group):
    kinds = data.draw(st.lists(st.sampled_from([*_cells]), min_size=1, max_size=3))
    columns = {
        f"column {n}": data.draw(st.lists(_cells[kind], min_size=rows, max_size=rows)) for n, kind in enumerate(kinds)
    }
    schema = pa.schema([(name, kind) for name, kind in zip(columns, kinds, strict=True)])
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table(columns, schema=schema), path, compression=compression, row_group_size=group)
    frame = tables.read_table(path, list(columns))
    for name, wanted in columns.items():
        for value, given_value in zip(frame[name].tolist(), wanted, strict=True):
            if isinstance(given_value, float) and math.isnan(given_value):
                assert value != value
            else:
                assert value == given_value
                assert type(value) is type(given_value)


@given(strategies.tables(strategies.texts), st.sampled_from([".csv", ".tsv"]), st.data())
def test_two_columns_of_one_name_are_refused(tmp_path, table, suffix, data):
    names, cells = table
    twice = data.draw(st.sampled_from(names))
    path = tmp_path / f"rows{suffix}"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="," if suffix == ".csv" else "\t", quoting=csv.QUOTE_ALL)
        writer.writerows([[*names, twice], *([*row, "x"] for row in cells)])
    with pytest.raises(BadInput, match="two columns"):
        tables.read_table(path, names)
    with pytest.raises(BadInput, match="two columns"):
        in_pieces(path, names[0], 2)


_lines = st.one_of(
    strategies.texts,
    st.text('",\t\r\n a', max_size=12),
    st.just('{"text": "a"}'),
    st.just('"open'),
    st.just("text,label"),
)


def written(rows, suffix):
    """The bytes of a file with the columns text and label."""
    if suffix == ".jsonl":
        return "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows).encode()
    if suffix == ".parquet":
        sink = io.BytesIO()
        pq.write_table(pa.table({"text": [text for text, _ in rows], "label": [label for _, label in rows]}), sink)
        return sink.getvalue()
    sink = io.StringIO()
    csv.writer(sink, delimiter="," if suffix == ".csv" else "\t", quoting=csv.QUOTE_ALL).writerows(
        [("text", "label"), *rows]
    )
    return sink.getvalue().encode()


@st.composite
def contents(draw):
    """A file that is whole, or one that is damaged, goes on with odd lines or is none at all."""
    suffix = draw(st.sampled_from([".csv", ".tsv", ".jsonl", ".parquet"]))
    whole = written(draw(st.lists(st.tuples(strategies.texts, strategies.texts), min_size=1, max_size=4)), suffix)
    lines = st.lists(_lines, max_size=4).map(lambda lines: "\n".join(lines).encode())
    if not draw(strategies.odd):
        return whole, suffix
    place = draw(st.integers(0, len(whole)))
    damaged = [st.just(whole[:place]), lines.map(lambda said: whole + said), lines, st.binary(max_size=40)]
    if suffix != ".parquet":  # a format of bytes has its own library's checks, and they are not ours
        damaged.append(st.binary(min_size=1, max_size=2).map(lambda byte: whole[:place] + byte + whole[place + 1 :]))
    return draw(st.one_of(damaged)), suffix


@given(contents())
@settings(max_examples=nightly.cases(few=120, nightly=1_000))
@example((b"text,label\n", ".csv"))
@example((b'"text"\n"a', ".tsv"))
@example((b'["text"]', ".jsonl"))
@example((b"PAR1PAR1", ".parquet"))
@example((b'{"text": 1e999}', ".jsonl"))
@example((b"\xef\xbb\xbf", ".csv"))
@example((b'"a\nb",label\nx,y\n', ".csv"))  # the message lists the columns, and one has a line end in its name
@example((b"0\x1e0", ".csv"))
def test_any_bytes_are_a_table_or_refused_in_one_sentence(tmp_path, content):
    """And what can be streamed is the same table as what is read whole."""
    content, suffix = content
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(content)
    try:
        frame = tables.read_table(path, ["text"])
    except BadInput as problem:
        refusals.require(problem)
        return
    assert len(frame) > 0
    if suffix == ".parquet":
        return
    whole = without_missing(frame.astype(object).to_numpy().tolist())
    try:
        assert without_missing(in_pieces(path, "text", 10_000)) == whole
    except BadInput as problem:
        refusals.require(problem, "text")  # a list or an object, which is no text


_texts_of_lines = strategies.texts.map(lambda text: text.replace("\r", "").replace("\n", ""))


@given(st.lists(_texts_of_lines, min_size=1, max_size=6), st.integers(1, 4), ENDS)
def test_a_text_file_has_a_text_a_line(tmp_path, lines, size, end):
    assume(not lines[0].startswith("\ufeff"))  # a byte order mark is no text
    path = tmp_path / "texts.txt"
    path.write_text("".join(line + end for line in lines), encoding="utf-8", newline="")
    found = [text for part in streams.chunks(str(path), rows=size) for text in streams.texts(part, "text")]
    assert found == lines
