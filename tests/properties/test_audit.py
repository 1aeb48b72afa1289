"""The audit: it reads any table or refuses it, finds what is planted, shows nothing private, repairs what it says."""

import hashlib
import html.parser
import json
import re

import pandas as pd
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from ftlab import files
from ftlab.data.audit import audit, audit_instructions, personal_data, repairs, text_noise
from ftlab.data.audit.findings import SEVERITIES, catalogue
from ftlab.errors import BadInput
from tests import nightly
from tests.command_line import ftlab
from tests.properties import refusals, strategies

SLOW = settings(max_examples=nightly.cases(few=3, nightly=1_000))
# Findings that say something of the order of the rows, or keep the first row of those that are alike.
OF_ORDER = {"sorted_by_label"}


def table(texts, labels, prefix="r"):
    return pd.DataFrame(
        {"id": [f"{prefix}{n}" for n in range(len(texts))], "text": texts, "label": labels}, dtype=object
    )


def pairs(prompts, completions):
    return pd.DataFrame(
        {"id": [f"r{n}" for n in range(len(prompts))], "prompt": prompts, "completion": completions}, dtype=object
    )


LABELS = ("good", "bad", "Good", "bad ", "<b>odd</b>")


@st.composite
def reviews(draw, *, most=14, labels=LABELS):
    """A table of texts and labels, with copies of some rows; one text at least is not blank."""
    texts = [draw(strategies.said), *draw(st.lists(strategies.texts, min_size=3, max_size=most - 1))]
    texts += draw(st.lists(st.sampled_from(texts), max_size=3))
    return table(texts, draw(st.lists(st.sampled_from(labels), min_size=len(texts), max_size=len(texts))))


@st.composite
def two_files(draw):
    """Training rows and test rows, whose labels are among those of the training rows; or pairs, which have none."""
    frame = draw(reviews())
    other = draw(reviews(most=5, labels=sorted({*frame["label"]})))
    other["id"] = [f"t{n}" for n in range(len(other))]
    if draw(st.booleans()):
        return tuple(pairs(rows["text"], rows["text"][::-1]).assign(id=rows["id"]) for rows in (frame, other))
    return frame, other


@st.composite
def columns(draw, good, other):
    """Cells of two columns: `good` and `other` ones, or missing, with copies of rows; in an odd table anything."""
    if draw(strategies.odd):
        return draw(st.lists(st.tuples(strategies.anything, strategies.anything), max_size=8))
    sure = draw(st.tuples(strategies.said, other))
    cells = st.tuples(good | strategies.missing, other | strategies.missing)
    rows = [sure, *draw(st.lists(cells, min_size=1, max_size=8))]
    return draw(st.permutations([*rows, *draw(st.lists(st.sampled_from(rows), max_size=2))]))  # with copies


CLASSES = st.one_of(st.sampled_from(["a", "b", "B ", "<b>"]), st.integers(0, 2))


def examined(frame, **options):
    """The report, or None if the table is refused in one sentence."""
    try:
        return (audit_instructions if "prompt" in frame else audit)(frame, **options)
    except BadInput as problem:
        refusals.require(problem)
        return None


def require_sound(report, frames):
    """The counts are within the rows, the ids are those of rows, and the report can be shown in each form."""
    ids = {str(row) for frame in frames for row in frame["id"]}
    size = sum(map(len, frames))
    assert report.rows == len(frames[0])
    for found in report.findings:
        assert found.id in catalogue()
        assert 0 < found.count <= size, found
        assert len(found.rows) == len({*found.rows}) or found.id in ("contained_texts",), found
        assert not found.rows or found.count == len(found.rows), found
        assert {row.split("/")[-1] for row in found.rows} <= {row.split("/")[-1] for row in ids}, found
        assert found.evidence.empty or list(found.evidence["id"]) == list(found.rows)
        assert "{count}" not in found.what
    ranks = [SEVERITIES.index(found.severity) for found in report.findings]
    assert ranks == sorted(ranks)
    said = json.loads(files.to_json(report.to_dict(), ascii_only=True))
    assert [found["count"] for found in said["findings"]] == [found.count for found in report.findings]
    str(report).encode()
    report.html("a title").encode()
    report._repr_html_().encode()


# --- any table ---


@given(columns(strategies.texts, CLASSES))
@settings(max_examples=nightly.cases(few=12, nightly=1_000))
@example([("a", "x"), ("\ud800", "y")])
@example([(None, None), (None, None)])
@example([("a", 1), ("b", "1"), ("c", True)])
def test_any_table_of_texts_is_audited_or_refused_in_one_sentence(rows):
    frame = table([text for text, _ in rows], [label for _, label in rows])
    report = examined(frame)
    if report is not None:
        require_sound(report, [frame])


@given(columns(strategies.texts, strategies.texts))
@settings(max_examples=nightly.cases(few=8, nightly=1_000))
def test_any_table_of_pairs_is_audited_or_refused_in_one_sentence(rows):
    frame = pairs([prompt for prompt, _ in rows], [completion for _, completion in rows])
    report = examined(frame)
    if report is not None:
        require_sound(report, [frame])


@given(two_files())
@settings(max_examples=nightly.cases(few=6, nightly=1_000))
def test_a_report_on_two_files_counts_within_the_rows_of_both(frames):
    frame, other = frames
    report = examined(frame, test=other)
    if report is not None:
        require_sound(report, [frame, other])


@given(strategies.texts, st.integers(1, 3))
@settings(max_examples=nightly.cases(few=1, nightly=60))  # each takes seconds
def test_a_huge_text_is_no_trouble(text, times):
    texts = [f"{text} {n} " * (20_000 // (len(text) + 4)) * (n == 0) + "so it is" for n in range(4)] * times
    report = examined(table(texts, ["a", "b"] * (len(texts) // 2)))
    require_sound(report, [table(texts, texts)])


# --- what is planted is found ---


@given(st.lists(strategies.said, min_size=4, max_size=10, unique=True), st.data())
@SLOW
def test_an_exact_copy_is_always_found(texts, data):
    place = data.draw(st.integers(0, len(texts) - 1))
    assume(not any(other != place and texts[other].strip() == texts[place].strip() for other in range(len(texts))))
    where = data.draw(st.integers(place + 1, len(texts)))
    frame = table([*texts[:where], texts[place], *texts[where:]], (["a", "b"] * len(texts))[: len(texts) + 1])
    report = audit(frame)
    copies = {row for kind in ("exact_duplicates", "conflicting_labels") if kind in report for row in report[kind].rows}
    assert f"r{where}" in copies


DOMAINS = st.sampled_from(["mail.de", "proton.me", "firma.co.uk", "uni-bonn.de"])
NAMES = st.text("abcdefghijklmnopqrstuvwxyz", min_size=3, max_size=9)
PRIVATE = {
    "email_addresses": st.builds("{}.{}@{}".format, NAMES, NAMES, DOMAINS),
    "bank_accounts": st.sampled_from(
        ["DE89 3704 0044 0532 0130 00", "DE89370400440532013000", "GB82 WEST 1234 5698 7654 32"]
    ),
    "phone_numbers": st.integers(10_000_000, 99_999_999).map(lambda n: f"+49 171 {n}"),
    "secrets": st.integers(0, 9999).map(lambda n: "ghp_" + hashlib.sha256(str(n).encode()).hexdigest()[:36]),
}
AROUND = st.sampled_from(
    [
        (" ", " "),
        ("\n", "\n"),
        ("<", ">"),
        (" (", ") "),
        ("mailto:", " "),
        (" '", "' "),
        ("\t", ", "),
        (" \u200b", " "),
        ("\u4f60 ", " "),
    ]
)


@st.composite
def planted(draw):
    """A kind of private datum, the datum, and a text that has it between a person's words."""
    kind = draw(st.sampled_from([*PRIVATE]))
    private = draw(PRIVATE[kind])
    before, after = draw(AROUND)
    words = strategies.plain.map(lambda text: re.sub(r"\d", "", text))
    return kind, private, f"{draw(words)} x{before}{private}{after}x {draw(words)}"


@given(
    planted(),
    st.lists(strategies.texts, min_size=4, max_size=6),
    st.sampled_from(["text", "copies", "label", "test", "pair"]),
)
@settings(max_examples=nightly.cases(few=6, nightly=1_000))
def test_no_form_of_a_report_shows_what_is_private(planted, texts, where):
    kind, private, text = planted
    others = {}
    if where == "pair":
        frame = pairs([text, *texts], [*texts, text])
    else:
        rows = (
            [text, *texts]
            if where == "text"
            else [text, *texts, text, text.upper() if kind != "secrets" else text, f"{text}!"]
            if where == "copies"
            else texts
        )
        frame = table(rows, (["a", "b"] * 9)[: len(rows)])
    if where == "label":
        frame["label"] = [text, "a"] * (len(texts) // 2) + ["a"] * (len(texts) % 2)
    if where == "test":
        others = {"test": table([text, *texts[:2]], ["a", "b", "a"], prefix="t")}
    report = examined(frame, **others)
    if report is None:
        return
    assert kind in report
    shown = [
        str(report),
        report.html("Audit"),
        report._repr_html_(),
        files.to_json(report.to_dict()),
        repr(report.lengths.to_dict()),
        report.classes.to_csv(),
    ]
    core = max(re.split(r"[ @-]", private), key=len)
    for form in shown:
        assert private.lower() not in form.lower()
        assert core.lower() not in form.lower() or core in ("mail.de",), form
    masked = personal_data.without_private(text)
    assert private not in masked
    assert personal_data.without_private(masked) == masked
    if kind in report.repairable:
        repaired = report.repair(kind)
        assert private not in " ".join(
            str(value) for column in repaired.rows for value in repaired.rows[column] if column != "label"
        )
        assert private not in repaired.log.to_csv()


# --- the order of the rows ---


@given(reviews(), st.randoms(use_true_random=False))
@SLOW
def test_the_order_of_the_rows_does_not_change_how_many_have_a_defect(frame, random):
    order = [*range(len(frame))]
    random.shuffle(order)
    one, other = examined(frame), examined(frame.iloc[order])
    assert (one is None) == (other is None)
    if one is not None:
        counts = [
            {found.id: found.count for found in report.findings if found.id not in OF_ORDER} for report in (one, other)
        ]
        assert counts[0] == counts[1]


# --- repairs ---


@given(reviews(), st.data())
@settings(max_examples=nightly.cases(few=5, nightly=1_000))
def test_a_repaired_finding_is_gone_and_the_log_has_each_change(frame, data):
    report = examined(frame)
    assume(report is not None and report.repairable)
    chosen = data.draw(st.sampled_from(report.repairable))
    before = frame.copy()
    try:
        repaired = report.repair(chosen)
    except BadInput as problem:
        refusals.require(problem, "would drop all")
        return
    pd.testing.assert_frame_equal(frame, before)
    assert len(repaired.rows) + (repaired.log["action"] == "dropped").sum() == len(frame)
    assert {*repaired.rows["id"]} <= {*frame["id"]}
    kept = frame.set_index("id").loc[repaired.rows["id"]]
    altered = repaired.rows.set_index("id")["text"] != kept["text"]
    respelled = repaired.rows.set_index("id")["label"] != kept["label"]
    assert {*kept.index[(altered | respelled).to_numpy()]} == {
        *repaired.log["id"][repaired.log["action"] == "changed"]
    } - {"(all)"}
    again = examined(repaired.rows)
    if again is not None:
        assert chosen not in again or chosen in MAY_COME_BACK, chosen


def test_a_class_that_is_tiny_without_its_blank_rows_is_left_out():
    frame = table(["good film", "fine film", "", *(f"bad film {n}" for n in range(9))], ["good"] * 3 + ["bad"] * 9)
    repaired = audit(frame).repair("tiny_class")
    assert [*repaired.log["id"]] == ["r0", "r1"]


# ftfy names more than it can correct ("Ü÷"), and entities are decoded up to three times.
MAY_COME_BACK = {"mojibake", "entities"}


# Entities are decoded up to three times, and more often encoded ones are a puzzle; ftfy corrects what it can.
SURE = [kind for kind in repairs.REWRITES if kind not in ("boilerplate", "entities", "mojibake")]


@given(strategies.texts, st.sampled_from(SURE))
@settings(max_examples=nightly.cases(few=100, nightly=1_000))
def test_a_rewritten_text_has_no_such_defect_and_is_not_changed_again(text, kind):
    once = repairs.REWRITES[kind](text)
    assert repairs.REWRITES[kind](once) == once
    if kind in text_noise.FINDERS:
        assert not text_noise.FINDERS[kind](once)
    else:
        assert kind not in {span.finding for span in personal_data.scan(once)}


# --- the page and the command ---


class Tags(html.parser.HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, tuple(name for name, _ in attributes)))


ATTACKS = st.sampled_from(
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "</td></table><iframe src='//x'>",
        "'\"><svg onload=alert(1)>",
        "<a href=javascript:1>",
        "&lt;script>",
        "<style>*{}</style>",
        "<!--",
        "]]>",
        "{{ 7*7 }}",
    ]
)


@given(st.lists(ATTACKS, min_size=5, max_size=9), st.lists(ATTACKS, min_size=2, max_size=2, unique=True), ATTACKS)
@settings(max_examples=nightly.cases(few=2, nightly=1_000))
def test_a_page_has_no_tag_that_the_rows_or_the_title_bring(texts, labels, title):
    texts = [*texts, texts[0], "plain words of a review", "plain words of a review"]
    hostile = table([f"{text} a film" for text in texts], (labels * len(texts))[: len(texts)], prefix="<b>")
    page = audit(hostile).html(title)
    tags = Tags(page)
    assert not {"script", "img", "iframe", "a"} & {tag for tag, _ in tags.found}
    assert not any(name.startswith("on") for _, names in tags.found for name in names)
    assert [tag for tag, _ in tags.found].count("style") == 2  # of the page itself, and of the report
    assert ">49<" not in page


@given(reviews(most=8), st.sampled_from([None, "error", "warning"]))
@SLOW
def test_the_command_s_exit_code_agrees_with_the_gate(tmp_path, capsys, frame, gate):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(json.dumps(row) + "\n" for row in frame[["text", "label"]].to_dict("records")), encoding="utf-8"
    )
    code, out, lines = ftlab(capsys, "audit", path, "--json", *(["--fail-on", gate] if gate else []))
    if code == 2:
        refusals.count()
        assert len(lines) == 1
        assert lines[0].startswith("ftlab: ")
        assert not out
        return
    found = {one["severity"] for one in json.loads(out)["findings"]}
    stops = {None: set(), "error": {"error"}, "warning": {"error", "warning"}}[gate]
    assert code == bool(found & stops)
