"""The rating widgets, pressed by a program: each press rates one answer, and none gets lost or doubled."""

import re

import pandas as pd
import pytest

from ftlab.course.rating_form import Rater
from ftlab.errors import BadInput
from ftlab.evaluation.rating import SCALE, Item, Sheet
from ftlab.progress import HEADLESS


@pytest.fixture
def sheet():
    texts = ["so", "<b>no</b> & yes", "", "=1+1"]
    items = [Item(f"r{number}", f"Do {number}.", text, "ab"[number % 2]) for number, text in enumerate(texts)]
    return Sheet(tuple(items), ("a", "b"))


@pytest.fixture
def rater(sheet):
    return Rater(sheet)


class Parts:
    """The widgets of a rater by what they are for."""

    def __init__(self, rater):
        self.place, self.shown, row = rater.widget().children
        *self.buttons, self.back = row.children

    def rate(self, *values):
        for value in values:
            self.buttons[value - SCALE[0]].click()


def test_each_press_rates_the_answer_that_is_shown_and_goes_on(rater, sheet):
    parts = Parts(rater)
    assert [button.description[0] for button in parts.buttons] == ["1", "2", "3", "4", "5"]
    for number, value in enumerate((4, 1, 5, 2)):
        assert f"answer {number + 1} of 4" in parts.place.value
        assert f"Do {number}." in parts.shown.value
        assert rater.missing == 4 - number
        parts.rate(value)
    assert rater.ratings == [4, 1, 5, 2]
    assert rater.missing == 0


def test_answers_are_shown_as_text_and_an_empty_one_as_empty(rater):
    parts = Parts(rater)
    parts.rate(1)
    assert "&lt;b&gt;no&lt;/b&gt; &amp; yes" in parts.shown.value
    parts.rate(1)
    assert "(an empty answer)" in parts.shown.value


def test_the_texts_have_the_colours_of_the_theme(rater):
    assert not re.search(r"(color|background):\s*(#|black|white)", Parts(rater).shown.value)


def test_back_mends_a_slip_and_nothing_else(rater):
    parts = Parts(rater)
    assert parts.back.disabled
    parts.rate(4, 1)
    assert not parts.back.disabled
    parts.back.click()
    assert "answer 2 of 4" in parts.place.value
    assert rater.ratings == [4, 1, None, None]
    parts.rate(3)
    assert rater.ratings == [4, 3, None, None]
    assert "answer 3 of 4" in parts.place.value


def test_when_all_is_rated_the_buttons_rest_and_back_still_works(rater):
    parts = Parts(rater)
    parts.rate(1, 2, 3, 4)
    assert all(button.disabled for button in parts.buttons)
    assert "All answers are rated" in parts.place.value
    assert not parts.shown.value
    parts.back.click()
    assert not any(button.disabled for button in parts.buttons)
    parts.rate(5)
    assert rater.ratings == [1, 2, 3, 5]


def test_a_press_too_many_changes_nothing(rater):
    """A double click sends its second press before the button can be disabled."""
    parts = Parts(rater)
    parts.back.click()
    parts.rate(2)
    assert rater.ratings == [2, None, None, None]
    parts.rate(2, 2, 2, 5)
    assert rater.ratings == [2, 2, 2, 2]


def test_widgets_that_are_shown_twice_are_the_same(rater):
    """Of two sets, one would go on showing an answer that the other has rated."""
    Parts(rater).rate(3)
    parts = Parts(rater)
    assert "answer 2 of 4" in parts.place.value
    assert rater.widget() is rater.widget()


def test_where_nobody_watches_a_sentence_stands_instead(rater, monkeypatch, capsys):
    monkeypatch.setenv(HEADLESS, "1")
    assert rater.show() is None
    assert capsys.readouterr().out.startswith("4 answers wait for a rating: run this cell in Jupyter")


def test_before_a_person_the_widgets_are_shown_and_stay_when_all_is_rated(rater, monkeypatch, capsys):
    monkeypatch.delenv(HEADLESS, raising=False)
    assert rater.show() is rater.widget()
    Parts(rater).rate(1, 2, 3, 4)
    assert rater.show() is rater.widget()  # `back` is still there
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("headless", [True, False])
def test_what_was_saved_is_read_again(rater, sheet, tmp_path, monkeypatch, capsys, headless):
    Parts(rater).rate(4, 1, 5, 2)
    rater.save(tmp_path / "form.csv")
    if headless:
        monkeypatch.setenv(HEADLESS, "1")
    else:
        monkeypatch.delenv(HEADLESS, raising=False)
    for form in (tmp_path / "form.csv", str(tmp_path / "form.csv")):
        again = Rater(sheet, form=form)
        assert again.ratings == rater.ratings
        assert again.missing == 0
        assert again.show() is None
        assert capsys.readouterr().out == "4 ratings were read from the form\n"


def test_a_form_saved_half_way_has_what_was_given_and_waits_for_the_rest(rater, sheet, tmp_path):
    Parts(rater).rate(4)
    rater.save(tmp_path / "form.csv")
    assert pd.read_csv(tmp_path / "form.csv")["rating"].tolist()[0] == 4
    with pytest.raises(BadInput, match=r"line 2 of .* has no rating"):
        Rater(sheet, form=tmp_path / "form.csv")


def test_saving_again_takes_the_place_of_the_older_form(rater, sheet, tmp_path):
    parts = Parts(rater)
    parts.rate(4, 1, 5, 2)
    rater.save(tmp_path / "form.csv")
    parts.back.click()
    parts.rate(3)
    rater.save(tmp_path / "form.csv")
    assert Rater(sheet, form=tmp_path / "form.csv").ratings == [4, 1, 5, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["form.csv"]


def test_each_press_is_saved_at_once(sheet, tmp_path):
    parts = Parts(Rater(sheet, keep=tmp_path / "form.csv"))
    assert not (tmp_path / "form.csv").exists()
    parts.rate(4)
    assert pd.read_csv(tmp_path / "form.csv")["rating"].tolist()[0] == 4
    parts.rate(1)
    parts.back.click()
    parts.rate(3)
    assert pd.read_csv(tmp_path / "form.csv")["rating"].tolist()[:2] == [4, 3]


def test_a_form_saved_half_way_is_taken_up_where_it_was_left(rater, sheet, tmp_path):
    Parts(rater).rate(4, 1)
    rater.save(tmp_path / "form.csv")
    again = Rater(sheet)
    assert again.recall(tmp_path / "form.csv") == 2
    assert again.ratings == [4, 1, None, None]
    assert "answer 3 of 4" in Parts(again).place.value


def test_ratings_of_answers_that_have_changed_are_not_taken_over(rater, sheet, tmp_path):
    Parts(rater).rate(4, 1, 5, 2)
    rater.save(tmp_path / "form.csv")
    items = list(sheet.items)
    items[1] = Item("r1", "Do 1.", "another answer", "b")
    items[2] = Item("r2", "Do 2, please.", "", "a")
    again = Rater(Sheet(tuple(items), sheet.models))
    assert again.recall(tmp_path / "form.csv") == 2
    parts = Parts(again)
    assert "answer 2 of 4" in parts.place.value
    parts.rate(2)
    assert "answer 3 of 4" in parts.place.value
    parts.rate(3)
    assert again.ratings == [4, 2, 3, 2]
    assert "All answers are rated" in parts.place.value


def test_a_rating_that_was_given_here_is_not_replaced_by_an_older_one(rater, sheet, tmp_path):
    Parts(rater).rate(4, 1, 5, 2)
    rater.save(tmp_path / "form.csv")
    again = Rater(sheet)
    Parts(again).rate(3)
    assert again.recall(tmp_path / "form.csv") == 3
    assert again.ratings == [3, 1, 5, 2]


def test_a_file_that_is_no_form_is_not_taken_over(rater, tmp_path):
    (tmp_path / "other.csv").write_text("id,text\n1,a\n", encoding="utf-8")
    with pytest.raises(BadInput, match="has no column 'item'"):
        rater.recall(tmp_path / "other.csv")


def test_where_nobody_watches_the_answers_that_wait_are_named(rater, tmp_path, sheet, monkeypatch, capsys):
    monkeypatch.setenv(HEADLESS, "1")
    Parts(rater).rate(4, 1, 5)
    rater.show()
    assert capsys.readouterr().out.startswith("1 answer waits for a rating (number 4): run this cell")
    Parts(rater).rate(2)
    rater.show()
    assert capsys.readouterr().out == "all 4 answers have a rating from an earlier run\n"
