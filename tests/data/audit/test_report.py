import json
import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from ftlab.data import sources
from ftlab.data.audit import audit, audit_instructions
from ftlab.data.audit.findings import SEVERITIES, catalogue
from ftlab.errors import BadInput

from .planted import EXAMPLES, changed, copied, edited, example, pairs, report, reviews, table, tokenizer

# Findings that do not depend on the order of the rows. (Which copy comes first does.)
ORDER_FREE = [
    "missing_text", "missing_label", "label_slip", "tiny_class", "conflicting_labels", "conflicting_near_labels",
    "leakage", "near_leakage", "truncation", "token_shortcut", "markup", "entities", "mojibake", "control_characters",
    "boilerplate", "email_addresses", "phone_numbers", "card_numbers", "bank_accounts", "national_ids",
    "ip_addresses", "secrets", "documentation_addresses", "missing_prompt", "empty_completion",
    "copied_completion", "completion_cut", "all_masked", "eos_lost", "special_tokens", "unknown_tokens",
    "placeholder_texts", "template_headings", "prompt_cut", "refused", "refusal", "cut_off_answer",
    "broken_conversation",
]  # fmt: skip


def test_every_finding_of_the_catalogue_has_an_example():
    assert set(EXAMPLES) == set(catalogue())


@pytest.mark.parametrize("finding_id", EXAMPLES)
def test_each_finding_of_the_catalogue_is_found_in_its_example(finding_id):
    found = report(finding_id)[finding_id]
    assert set(found.rows) == set(example(finding_id).rows)
    assert found.severity == catalogue()[finding_id]["severity"]


@pytest.mark.parametrize("finding_id", EXAMPLES)
def test_a_finding_counts_its_rows_once_each(finding_id):
    found = report(finding_id)[finding_id]
    assert found.count == len(found.rows) == len(set(found.rows)) if found.rows else found.count > 0


@pytest.mark.parametrize("finding_id", EXAMPLES)
def test_evidence_has_a_line_for_each_row_of_its_finding_or_is_empty(finding_id):
    found = report(finding_id)[finding_id]
    assert found.evidence.empty or sorted(found.evidence["id"]) == sorted(found.rows)


def test_rows_with_nothing_wrong_give_no_error_and_no_warning():
    assert [found.id for found in audit(reviews(200)).findings] == ["few_rows"]
    assert audit(reviews(200)).at_least("warning") == []


def test_pairs_with_nothing_wrong_give_no_finding():
    assert audit_instructions(pairs(), tokenizer=tokenizer("tiny-gpt2"), max_length=256).findings == ()


@pytest.mark.parametrize("finding_id", ORDER_FREE)
def test_the_order_of_the_rows_does_not_change_what_is_found(finding_id):
    planted = example(finding_id)
    shuffled = planted.audit(planted.frame.sample(frac=1, random_state=1))
    assert set(shuffled[finding_id].rows) == set(planted.rows)


@pytest.mark.parametrize("finding_id", EXAMPLES)
def test_an_audit_does_not_change_the_rows(finding_id):
    pd.testing.assert_frame_equal(example(finding_id).frame, EXAMPLES[finding_id]().frame)


def test_equal_rows_give_equal_reports():
    for finding_id in ("near_duplicates", "likely_label_errors", "completion_cut"):
        once, again = report(finding_id), example(finding_id).audit()
        assert once.findings == again.findings
        assert once.to_dict() == again.to_dict()


def test_the_worst_findings_come_first():
    frame = changed(copied(reviews(), 15, of=4), "text", {5: None, 6: "<b>dull</b>"})
    severities = [found.severity for found in audit(frame).findings]
    assert severities == sorted(severities, key=SEVERITIES.index)
    assert set(severities) == {"error", "warning", "info"}


def test_at_least_gives_findings_as_bad_or_worse():
    frame = changed(copied(reviews(), 15, of=4), "text", {5: None})
    found = {severity: {each.severity for each in audit(frame).at_least(severity)} for severity in SEVERITIES}
    assert found == {"error": {"error"}, "warning": {"error", "warning"}, "info": {"error", "warning", "info"}}
    with pytest.raises(BadInput, match="no severity 'bad'; expected one of error, warning, info"):
        audit(frame).at_least("bad")


def test_a_missing_finding_is_refused_with_those_that_were_found():
    assert "leakage" not in report("few_rows")
    with pytest.raises(BadInput, match="found no 'leakage'; it found few_rows"):
        report("few_rows")["leakage"]


def test_skipped_checks_are_listed():
    skipped = " ".join(report("few_rows").skipped)
    assert "tokenizer" in skipped
    assert "test rows" in skipped
    given = audit(table(["a b", "c d"], ["x", "y"]), test=table(["e f"], ["x"], "t"), tokenizer=tokenizer("tiny-gpt2"))
    assert "tokenizer" not in " ".join(given.skipped)
    assert "leakage" not in " ".join(given.skipped)


# --- text ---


@pytest.mark.parametrize("finding_id", EXAMPLES)
def test_the_text_has_each_finding_in_lines_of_a_hundred_characters(finding_id):
    said = str(report(finding_id))
    assert max(map(len, said.splitlines())) <= 100
    for found in report(finding_id).findings:
        assert f"[{found.severity}] {found.id}: " in said


def test_the_text_shows_some_rows_of_a_finding_and_counts_the_rest():
    said = str(report("boilerplate"))
    assert "r3, r4, r5, r6, r7 and 1 more" in said
    assert "r8" not in said


def test_the_repr_that_a_notebook_stores_is_short():
    assert len(repr(report("token_shortcut"))) < 3000


# --- HTML ---

HOSTILE = '<script>alert("1")</script>'


class Tags(HTMLParser):
    """Collects the tags of a page, and checks that each that is opened is closed."""

    def __init__(self, page: str):
        super().__init__()
        self.seen: set[str] = set()
        self.open: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.seen.add(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_html_in_the_rows_is_escaped():
    frame = changed(reviews(), "text", {5: f"good {HOSTILE} film"})
    shown = audit(frame.replace({"label": {"positive": HOSTILE}}))._repr_html_()
    assert "script" not in Tags(shown).seen
    assert "good &lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt; film" in shown
    assert shown.count("&lt;script&gt;") > 1  # the label too


def test_html_in_instruction_data_is_escaped():
    shown = example("markup").audit(changed(pairs(), "completion", {5: f"good {HOSTILE} film"}))._repr_html_()
    assert "script" not in Tags(shown).seen
    assert "&lt;script&gt;" in shown


def test_the_title_of_a_page_is_escaped():
    page = report("few_rows").html(f"Audit of {HOSTILE}")
    assert "<title>Audit of &lt;script&gt;" in page
    assert "script" not in Tags(page).seen


PERSONAL = "write to jo.doe@mail.de, call 212-555-2187, pay with 4111 1111 1111 1111"


@pytest.mark.parametrize(
    "text",
    [
        f"A film about a lighthouse. {PERSONAL}",
        f"A film about a lighthouse.\n{PERSONAL}",
        f'A film. <a href="x" title="{PERSONAL}">here</a>',
    ],
    ids=["text", "line", "tag"],
)
def test_a_report_shows_no_personal_data(text):
    report = audit(changed(reviews(), "text", {row: f"{reviews()['text'][row]} {text}" for row in range(6)}))
    assert {"email_addresses", "phone_numbers", "card_numbers"} <= {found.id for found in report.findings}
    for shown in (str(report), report.html(), json.dumps(report.to_dict())):
        for secret in ("jo.doe@mail.de", "212-555-2187", "4111 1111 1111 1111"):
            assert secret not in shown


@pytest.mark.parametrize("finding_id", ["truncation", "completion_cut", "near_leakage"])
def test_a_page_is_self_contained(finding_id):
    page = report(finding_id).html()
    assert page.startswith("<!doctype html>")
    assert not Tags(page).seen & {"script", "link", "img", "iframe", "object", "embed", "base"}
    assert not re.search(r"https?:|//|src=|url\(|@import|\son\w+=", page)


def test_a_report_has_the_colours_of_its_surroundings():
    page = report("few_rows").html()
    assert '<meta name="color-scheme" content="light dark">' in page
    assert not re.search(r"(color|background|fill):\s*(#|black|white)", page)


def test_a_fragment_has_no_page_around_it():
    assert not Tags(report("few_rows")._repr_html_()).seen & {"html", "head", "body", "title"}


@pytest.mark.parametrize("finding_id", EXAMPLES)
def test_the_page_shows_each_finding_with_what_to_do(finding_id):
    page = report(finding_id).html()
    assert f"<b>{finding_id}</b>" in page
    assert Tags(page)


def test_the_page_shows_a_copy_beside_its_first():
    page = report("near_duplicates").html()
    for text in (reviews()["text"][4], edited(reviews()["text"][4])):
        assert text[:80] in page


def test_the_page_shows_the_part_of_a_long_text_that_was_found():
    frame = changed(reviews(), "text", {5: "slow " * 500 + "and <marquee>fast</marquee><br>" + " slow" * 500})
    assert "&lt;br&gt;" in audit(frame).html()


def test_the_page_marks_max_length_where_it_cuts():
    frame = reviews(40)
    for max_length, marked in ((32, True), (4000, False)):
        page = audit(frame, tokenizer=tokenizer("tiny-distilbert"), max_length=max_length).html()
        assert (f"max_length {max_length}" in page) == marked


# --- JSON ---


@pytest.mark.parametrize("finding_id", EXAMPLES)
def test_json_holds_the_ids_of_all_rows(finding_id):
    loaded = json.loads(json.dumps(report(finding_id).to_dict(), allow_nan=False))
    found = next(each for each in loaded["findings"] if each["id"] == finding_id)
    assert found["rows"] == list(report(finding_id)[finding_id].rows)
    assert found["why"] == catalogue()[finding_id]["why"]
    assert found["todo"].startswith(catalogue()[finding_id]["todo"])


def test_json_holds_the_tables_of_a_report():
    loaded = report("truncation").to_dict()
    assert loaded["rows"] == 40
    assert loaded["max_length"] == 256
    assert [line["class"] for line in loaded["classes"]] == ["negative", "positive"]
    assert sum(line["rows"] for line in loaded["classes"]) == 40
    assert {"min", "median", "p95", "max"} == set(loaded["lengths"]["tokens"])
    assert 256 in [line["max_length"] for line in loaded["budgets"]]
    assert loaded["shortcuts"][0]["guess by"] == "the most frequent label"


def test_labels_that_are_numbers_or_truth_values_are_json():
    for labels in ([0, 1], [True, False]):
        frame = reviews().assign(label=pd.Series(labels * 9))
        loaded = json.loads(json.dumps(audit(frame).to_dict(), allow_nan=False))
        assert [line["class"] for line in loaded["classes"]] == sorted(map(str, labels))


def test_ids_say_where_a_row_stands_in_its_source():
    frame = sources.read("mini_reviews")
    frame.loc[5, "text"] = "<b>dull</b>"
    assert audit(frame)["markup"].rows == ("mini_reviews-00005",)
