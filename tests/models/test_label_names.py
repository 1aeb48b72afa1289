import re

import pytest

from ftlab.errors import BadInput
from ftlab.models import label_names

THREE = {"0": "bad", "1": "fine", "2": "good"}


def turned(names):
    return {label: int(number) for number, label in names.items()}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"id2label": THREE, "label2id": turned(THREE)}, ["bad", "fine", "good"]),
        ({"id2label": {"2": "good", "0": "bad", "1": "fine"}}, ["bad", "fine", "good"]),
        ({"id2label": {str(n): f"n{n}" for n in reversed(range(11))}}, [f"n{n}" for n in range(11)]),
        ({"label2id": turned(THREE)}, ["bad", "fine", "good"]),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"yes": 1, "no": 0}}, ["no", "yes"]),
        ({"id2label": THREE, "label2id": {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}}, ["bad", "fine", "good"]),
        ({"id2label": {"0": 0, "1": 1}, "label2id": {"0": 0, "1": 1}}, ["0", "1"]),
        ({"id2label": {"0": 1, "1": 5}}, ["1", "5"]),
        ({"num_labels": 3}, ["LABEL_0", "LABEL_1", "LABEL_2"]),
        ({"id2label": None, "label2id": None}, ["LABEL_0", "LABEL_1"]),
        ({}, ["LABEL_0", "LABEL_1"]),
        ({"id2label": THREE, "num_labels": 3}, ["bad", "fine", "good"]),
    ],
)
def test_the_names_stand_in_the_order_of_the_outputs(config, expected):
    assert label_names.read(config, "mine") == expected


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"id2label": {"1": "a", "2": "b", "3": "c"}}, "has the ids 1, 2, 3; a model counts its outputs from 0"),
        ({"id2label": {"0": "a", "2": "b"}}, "has the ids 0, 2; "),
        ({"label2id": {"a": 1, "b": 2}}, "the label2id of mine has the ids 1, 2"),
        ({"label2id": {"a": 0, "b": 0}}, "the label2id of mine gives several labels one id"),
        ({"label2id": {"a": [0]}}, "the label2id of mine"),
        ({"id2label": {"0": "a", "1": "a"}}, "calls several labels 'a'"),
        ({"id2label": {"0": 1, "1": "1"}}, "calls several labels '1'"),
        ({"id2label": {"0": "a", "zero": "b"}}, "has the id 'zero'"),
        ({"id2label": {"0": "a", "1": None}}, "calls label 1 None; expected a name"),
        ({"id2label": {"0": "a", "1": " "}}, "calls label 1 ' '; expected a name"),
        ({"id2label": {"0": "a", "1": ["b"]}}, "calls label 1 ['b']; expected a name"),
        ({"id2label": {"0": True, "1": False}}, "calls label 0 True; expected a name"),
        ({"id2label": ["a", "b"]}, "the id2label of mine is ['a', 'b']; expected an object"),
        ({"id2label": THREE, "label2id": {"good": 0, "fine": 1, "bad": 2}}, "contradicts itself"),
        ({"id2label": THREE, "num_labels": 2}, "has num_labels 2 and names 3 labels"),
    ],
)
def test_names_that_cannot_be_meant_are_refused_in_one_sentence(config, message):
    with pytest.raises(BadInput, match=re.escape(message)) as raised:
        label_names.read(config, "mine")
    assert "\n" not in str(raised.value)
