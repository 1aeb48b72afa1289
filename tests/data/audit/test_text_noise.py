# ruff: noqa: RUF001  some examples need characters that look like other letters
import pytest

from ftlab.data.audit import audit, audit_instructions, text_noise
from ftlab.data.audit.text_noise import FINDERS
from ftlab.data.words import SHARED_BY, without_lines

from .planted import changed, pairs, reviews

TRUE = {
    "markup": [
        "so<br>good", "a<br/>b", "a <BR /> b", "<p>dull</p>", '<a href="x">here</a>', "an <i>odd</i> one", "a</div>",
        "<!-- cut -->", "<!DOCTYPE html>", "<div\nclass='x'>",
    ],
    "entities": ["salt &amp; pepper", "it&#39;s", "it&#x27;s", "&nbsp;", "&Eacute;lan", "1 &lt; 2", "&quot;so&quot;"],
    "mojibake": ["cafÃ©", "naÃ¯ve", "â€œquotedâ€\x9d", "Ð¿Ñ€Ð¸Ð²ÐµÑ‚", "ÃƒÂ©"],
    "control_characters": [
        "nul\x00", "bell\x07", "esc\x1b[0m", "zero\u200bwidth", "a soft\u00ad ", "\ufeffmark", "lost\ufffd",
        "\u202eturned", "\x7f", "left\u200eto right", "می\u200bخواهم",
    ],
}  # fmt: skip
FALSE = {
    "markup": ["3 < 4 and 5 > 2", "i <3 it", "<sarcasm>", "a <- b", "<", "<<good>>", "<bold claim>", "x<y>z",
        "send it to <title of the book>", "<code goes here>", "x <a and y> b", "a <link removed> here", "<i think>",
        "<p=0.05>", "<s = 3>"],
    "entities": ["int *p = &region; p->next = &params;", "(&notes; &timesheet; &sectors;)",
        "R&D;", "AT&T", "Q&A; more", "fish & chips;", "&bogus;", "a &b; c"],
    "mojibake": [
        "café", "naïve façade", "Ångström", "señor, ¿qué?", "déjà vu", "“quoted” — so’s this", "50 °C", "привет",
        "我喜欢", "यह फ़िल्म बहुत अच्छी है।", "Größe über alles", "à la carte", "½ ² №",
    ],
    "control_characters": ["tab\tand\nline\r\n", "می\u200cخواهم", "👩\u200d👧", "क्\u200dष", "plain", "我喜欢",
        "Schiff\u00adfahrt", "قال\u200f: نعم", "\u202bשלום\u202c",
        "สวัสดี\u200bครับ"],
}  # fmt: skip


@pytest.mark.parametrize(("finding_id", "text"), [(kind, text) for kind, texts in TRUE.items() for text in texts])
def test_noise_is_found(finding_id, text):
    assert FINDERS[finding_id](text)


@pytest.mark.parametrize(("finding_id", "text"), [(kind, text) for kind, texts in FALSE.items() for text in texts])
def test_text_that_only_looks_like_noise_is_not_found(finding_id, text):
    assert FINDERS[finding_id](text) is None


def test_every_kind_has_true_and_false_examples():
    assert set(TRUE) == set(FALSE) == set(FINDERS)


@pytest.mark.parametrize("finding_id", FINDERS)
def test_the_shipped_reviews_have_no_noise(finding_id):
    assert [text for text in reviews()["text"] if FINDERS[finding_id](text)] == []


def test_a_finding_shows_the_match_of_each_row():
    frame = changed(reviews(), "text", {5: "it's &amp; it isn&#39;t", 9: "odd\u200b", 12: "so<br>dull"})
    report = audit(frame)
    assert report["entities"].evidence.values.tolist() == [["r5", "&amp;"]]
    assert report["control_characters"].evidence.values.tolist() == [["r9", "U+200B"]]
    assert report["markup"].evidence.values.tolist() == [["r12", "<br>"]]


def test_noise_in_test_rows_is_not_reported_for_training_rows():
    assert "markup" not in audit(reviews(), test=changed(reviews(5), "text", {2: "a <b>new</b> text"}))


def test_noise_in_a_row_without_a_label_is_found():
    frame = changed(changed(reviews(), "text", {5: "<b>dull</b>"}), "label", {5: None})
    assert audit(frame)["markup"].rows == ("r5",)


# --- lines that many texts share ---


def shared(rows: int, ending: str, column="text", frame=None):
    frame = reviews() if frame is None else frame
    return changed(frame, column, {row: frame[column][row] + ending for row in range(rows)})


@pytest.mark.parametrize("end", ["\n", "<br />", "\r\n", "<br><br>"])
def test_a_line_that_several_texts_share_is_boilerplate(end):
    found = audit(shared(SHARED_BY, f"{end}All rights are reserved."))["boilerplate"]
    assert found.rows == tuple(f"r{row}" for row in range(SHARED_BY))
    assert set(found.evidence["line"]) == {"All rights are reserved."}


def test_a_line_that_fewer_texts_share_is_no_boilerplate():
    assert "boilerplate" not in audit(shared(SHARED_BY - 1, "\nAll rights are reserved."))


@pytest.mark.parametrize("line", ["The end.", "supercalifragilisticexpialidocious ...", "- - - -"])
def test_a_short_line_is_no_boilerplate(line):
    assert "boilerplate" not in audit(shared(10, f"\n{line}"))


def test_a_line_that_one_text_repeats_is_no_boilerplate():
    frame = changed(reviews(), "text", {5: "All rights are reserved.\n" * 20})
    assert "boilerplate" not in audit(frame)


def test_copies_of_a_text_do_not_make_its_lines_boilerplate():
    frame = changed(reviews(), "text", dict.fromkeys(range(10), "A first line of some length.\nAnd a second one."))
    assert "boilerplate" not in audit(frame)


PAGE = (
    "This review was collected for research and may not be sold. All rights are reserved by the owners of the site. "
    "Read more of them on our pages."
)


@pytest.mark.parametrize("wrap", [f"{{}} {PAGE}", f"{PAGE} {{}}"])
def test_a_page_without_line_ends_is_boilerplate_and_is_removed(wrap):
    texts = {row: f"Film{row} has word{row} and thing{row} with part{row} of day{row}, man{row}." for row in range(5)}
    frame = changed(reviews(), "text", {row: wrap.format(text) for row, text in texts.items()})
    report = audit(frame)
    assert report["boilerplate"].rows == tuple(f"r{row}" for row in range(5))
    assert set(report["boilerplate"].evidence["line"]) == {PAGE}
    assert report.repair(["boilerplate"]).rows["text"][:5].tolist() == list(texts.values())


def test_a_whole_text_of_one_line_is_no_boilerplate():
    frame = changed(reviews(), "text", {row: "All rights are reserved" + "!" * row for row in range(10)})
    assert "boilerplate" not in audit(frame)


def test_stripping_a_line_leaves_the_other_lines():
    text = "one\nAll rights are reserved.\ntwo<br>All rights are reserved.<br>three"
    assert without_lines(text, ["All rights are reserved."]) == "one\ntwo<br>three"


# --- repairs ---

REPAIRS = {
    "markup": text_noise.strip_markup,
    "entities": text_noise.decode_entities,
    "mojibake": text_noise.fix_encoding,
    "control_characters": text_noise.strip_invisible,
}


@pytest.mark.parametrize(("finding_id", "text"), [(kind, text) for kind, texts in TRUE.items() for text in texts])
def test_a_repaired_text_has_no_noise_left(finding_id, text):
    assert FINDERS[finding_id](REPAIRS[finding_id](text)) is None


@pytest.mark.parametrize(("finding_id", "text"), [(kind, text) for kind, texts in FALSE.items() for text in texts])
def test_a_repair_does_not_change_a_text_without_noise(finding_id, text):
    assert REPAIRS[finding_id](text) == text


@pytest.mark.parametrize(
    ("finding_id", "text", "repaired"),
    [
        ("markup", "so<br /><br />good <b>film</b>!", "so good film !"),
        ("markup", "a <a href='x y' target=_blank\n title = \"z\">b</a> <td nowrap> <input disabled />", "a b"),
        ("entities", "salt &amp; pepper &#39;n&#39; R&D;", "salt & pepper 'n' R&D;"),
        ("entities", "a&nbsp;b", "a b"),
        ("entities", "salt &amp;amp; pepper", "salt & pepper"),
        ("mojibake", "the cafÃ© there", "the café there"),
        ("control_characters", "zero\u200bwidth\x00", "zerowidth"),
    ],
)
def test_a_repair_changes_only_the_noise(finding_id, text, repaired):
    assert REPAIRS[finding_id](text) == repaired


def test_noise_in_a_prompt_or_a_completion_is_found():
    frame = changed(changed(pairs(), "prompt", {3: "what is <b>bold</b>?"}), "completion", {8: "<i>slanted</i>"})
    assert audit_instructions(frame)["markup"].rows == ("r3", "r8")


def test_an_instruction_that_all_rows_share_is_no_boilerplate():
    """Instruction data is made this way, and users will send the same instruction."""
    frame = pairs()
    frame["prompt"] = "Say in one word what this review thinks.\n" + frame["prompt"]
    assert "boilerplate" not in audit_instructions(frame)
