import json

import numpy as np
import pytest

from ftlab.data.audit import audit

from .planted import PLAIN, opinions, report, reviews, table


def plain(rows: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(PLAIN, 12)) for _ in range(rows)]


def with_form(change, share: float = 1.0, frame=None):
    """The rows with a form on this share of the rows of one class."""
    frame = opinions() if frame is None else frame.copy()
    chosen = (frame["label"] == frame["label"].min()) & (np.random.default_rng(1).random(len(frame)) < share)
    frame.loc[chosen, "text"] = frame.loc[chosen, "text"].map(change)
    return frame


def said(frame) -> str:
    found = audit(frame)
    return found["shape_shortcut"].what if "shape_shortcut" in found else ""


@pytest.mark.parametrize(
    ("feature", "change"),
    [
        ("the final character", lambda text: f"{text}."),
        ("the case", str.upper),
        ("the space around the text", lambda text: f" {text}"),
        ("the space around the text", lambda text: f"{text}\n"),
        ("the emoji", lambda text: f"{text} 😀"),
        ("the first word", lambda text: f"re {text}"),
        ("the last word", lambda text: f"{text} end"),
        (
            "the script",
            lambda text: text.translate(str.maketrans("aeiou", "\u0430\u0435\u0456\u043e\u0443"))[:4] + "ж" * 60,
        ),
        ("the markup", lambda text: f"<p>{text}</p>"),
        ("the line ends", lambda text: text.replace(" ", "\r\n", 1)),
    ],
)
@pytest.mark.parametrize("share", [1.0, 0.9])
def test_a_form_that_gives_the_label_away_is_named(feature, change, share):
    assert f"a guess by {feature} alone is right in" in said(with_form(change, share))


def test_the_evidence_has_the_form_and_the_class_of_each_row():
    frame = with_form(lambda text: f"{text} ")
    evidence = audit(frame)["shape_shortcut"].evidence.set_index("id")
    marked = frame["text"].str.endswith(" ").to_numpy()
    assert set(evidence["form"]) == {"space around the text"}
    assert (evidence.loc[frame["id"], "value"] == np.where(marked, "after", "none")).all()
    assert (evidence.loc[frame["id"], "typical_of"] == np.where(marked, "bad", "good")).all()


def test_every_form_that_tells_too_much_is_named_and_stands_in_the_table():
    found = audit(with_form(lambda text: f" {text.upper()}"))
    for feature in ("case", "space around the text"):
        assert f"a guess by the {feature} alone is right in" in found["shape_shortcut"].what
        assert found.shortcuts.set_index("guess by").loc[f"{feature} alone", "accuracy"] > 0.9


def test_the_table_shows_the_best_form_if_none_tells_too_much():
    found = audit(opinions())
    assert "shape_shortcut" not in found
    assert len(found.shortcuts) == 5
    assert found.shortcuts["guess by"].iloc[-1] == "TF-IDF over all words"


def test_a_form_that_marks_a_third_of_one_class_is_named():
    assert "a class is given away by the space around the text" in said(with_form(lambda text: f"{text} ", 0.4))


def test_a_form_that_marks_one_of_many_classes_is_named_with_it():
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat([f"c{number:02}" for number in range(40)], 20)).tolist()
    frame = table([text.replace(" ", f" {label} ", 1) for text, label in zip(plain(800), labels, strict=True)], labels)
    assert said(frame) == ""
    found = audit(with_form(str.upper, frame=frame))
    assert "a class is given away by the case (all capitals: 100% c00)" in found["shape_shortcut"].what
    assert set(found["shape_shortcut"].evidence["typical_of"]) == {"c00"}


def of_two_kinds(rows: int = 120) -> list[str]:
    """Texts of two kinds that share no word, in turn."""
    return [
        " ".join(f"{'kl'[number % 2]}{word}" for word in np.random.default_rng(number).integers(0, 200, 30))
        for number in range(rows)
    ]


def test_a_form_that_belongs_to_the_task_is_a_note():
    """Code has another form, other lengths and other words than prose has."""
    texts = [f"{text};\n{text}" if number % 2 else text for number, text in enumerate(of_two_kinds())]
    found = audit(table(texts, ["code" if number % 2 else "prose" for number in range(120)]))
    for each in ("shape_shortcut", "length_shortcut"):
        assert found[each].severity == "info"
        assert "the other words (all but the 20 most telling) are right in 100.0% of its rows" in found[each].what


@pytest.mark.parametrize("change", [lambda text: f"{text} ", lambda text: f"<p>{text}</p>", lambda text: f"re {text}"])
def test_a_form_that_the_other_words_do_not_tell_is_a_warning(change):
    frame = reviews(200)
    frame["label"] = np.random.default_rng(0).permutation(["a", "b"] * 100)
    found = audit(with_form(change, 0.9, frame))
    assert {each.severity for each in found.findings if "shortcut" in each.id} == {"warning"}


def test_a_form_that_both_classes_have_is_not_named():
    rng = np.random.default_rng(0)
    frame = opinions()
    frame["text"] = [f"{text}." if rng.random() < 0.5 else text.upper() for text in frame["text"]]
    assert said(frame) == ""


def test_words_that_begin_the_questions_of_a_class_are_not_named():
    """ "who", "where" and "when" are part of the question."""
    rng = np.random.default_rng(0)
    starts = {"person": ["who", "whose", "name the"], "place": ["where", "in which", "name the"]}
    labels = rng.permutation(["person", "place"] * 150).tolist()
    texts = [
        f"{rng.choice(starts[label], p=[0.6, 0.2, 0.2])} {text}" for label, text in zip(labels, plain(300), strict=True)
    ]
    assert said(table(texts, labels)) == ""


def test_script_and_function_words_are_not_named_where_languages_are_the_labels():
    rng = np.random.default_rng(0)
    other = str.maketrans("abcdefghijklmnopqrstuvwxyz", "абцдефгхийклмнопярстувшхыз")
    labels = rng.permutation(["en", "ru"] * 50).tolist()
    texts = [text if label == "en" else text.translate(other) for label, text in zip(labels, plain(100), strict=True)]
    assert said(table(texts, labels)) == ""
    assert "a guess by the script alone" in said(table(texts, [{"en": "good", "ru": "bad"}[label] for label in labels]))


def test_many_forms_are_named_in_a_sentence_of_bounded_length():
    what = said(with_form(lambda text: f"\n<b>{text.upper()}  \u2014 \u201c@x\u201d 😀</b>\r\n{text}!"))
    assert "; likewise for " in what
    assert len(what) < 1000


@pytest.mark.parametrize("seed", range(5))
def test_forms_of_few_rows_with_random_labels_are_not_named(seed):
    frame = reviews(60)
    rng = np.random.default_rng(seed)
    frame["label"] = rng.permutation(["a", "b"] * 30)
    found = audit(frame)
    assert not {"shape_shortcut", "length_shortcut", "token_shortcut"} & {each.id for each in found.findings}


def test_a_form_that_gives_the_label_away_inflates_the_score():
    frame = reviews(200)
    frame["label"] = np.random.default_rng(0).permutation(["a", "b"] * 100)
    price = audit(with_form(lambda text: f"{text} ", frame=frame)).price("shape_shortcut")
    assert price.clear
    assert price.change.low > 0.2
    assert "inflates the score" in str(price)


def test_a_secret_that_gives_the_label_away_is_not_shown():
    key = "AKIA" + "QX7PZ2LM5RTV3WKD"
    found = audit(with_form(lambda text: f"{text} {key}"))
    assert "a guess by the last word alone" in found["shape_shortcut"].what
    assert "[private]" in found["token_shortcut"].what
    assert found.price("token_shortcut").rows == 200
    for face in (str(found), json.dumps(found.to_dict()), found._repr_html_()):
        assert key.lower() not in face.lower()


def test_two_hundred_classes_are_audited():
    rng = np.random.default_rng(0)
    labels = np.repeat([f"c{number:03}" for number in range(200)], 12).tolist()
    texts = [f"{text} {label} {label}{rng.integers(3)}" for text, label in zip(plain(2400), labels, strict=True)]
    found = audit(table(texts, labels))
    assert found.shortcuts.set_index("guess by").loc["TF-IDF over all words", "accuracy"] > 0.9
    assert "shape_shortcut" not in found


def test_the_example_names_the_space():
    assert "a guess by the space around the text alone" in report("shape_shortcut")["shape_shortcut"].what
