"""A deprecated call is found whatever the filters say, and is ours only if our line makes it."""

import warnings

import pytest

from tests import cells, warnings_of_ours

OUR_OWN = {
    "an argument": (
        "from transformers import TrainingArguments\nTrainingArguments('out', gradient_checkpointing=True)",
        "`gradient_checkpointing` is deprecated",
    ),
    "an argument in a dict": (
        "from transformers import TrainingArguments\nmore = {'gradient_checkpointing': True}\n"
        "TrainingArguments('out', **more)",
        "`gradient_checkpointing` is deprecated",
    ),
    "an argument that goes through another library": (
        "from trl import SFTConfig\nSFTConfig('out', use_cpu=True, bf16=False, gradient_checkpointing=True)",
        "`gradient_checkpointing` is deprecated",
    ),
    "one that a logger speaks of": (
        "from transformers import AutoModel, DistilBertConfig\n"
        "small = DistilBertConfig(dim=8, n_heads=1, n_layers=1, hidden_dim=8, vocab_size=9)\n"
        "AutoModel.from_config(small, torch_dtype='float32')",
        "`torch_dtype` is deprecated",
    ),
    "a method": (
        "import pandas as pd\ntable = pd.DataFrame({'a': [1]})\ntable.join(table, rsuffix=' 2')",
        "'lsuffix' and 'rsuffix' keywords",
    ),
    "a function": ("import warnings\nwarnings.warn('f() will be removed', FutureWarning)", "f() will be removed"),
}  # fmt: skip
OF_A_LIBRARY = {
    "a default of TRL, which transformers warns of": (
        "from trl import SFTConfig\nSFTConfig('out', use_cpu=True, bf16=False)",
        "deprecated",
    ),
    "no deprecation": ("import warnings\nwarnings.warn('a file is large', UserWarning)", ""),
}


def recorded(source: str) -> list[str]:
    with warnings_of_ours.recorded() as found, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as a lesson does
        cells._execute(source, "<a cell>", {"__name__": "__main__"})
    return found


@pytest.mark.parametrize(("source", "words"), OUR_OWN.values(), ids=OUR_OWN)
def test_our_own_call_is_found_with_its_line(source, words):
    (found,) = set(recorded(source))
    assert words in found
    assert found.startswith(f"<a cell>, line {len(source.splitlines())}: ")


@pytest.mark.parametrize(("source", "given"), OF_A_LIBRARY.values(), ids=OF_A_LIBRARY)
def test_what_a_library_does_by_itself_is_not_ours(source, given):
    assert recorded(source) == []
    with warnings.catch_warnings(record=True) as all_of_them:
        warnings.simplefilter("always")
        cells._execute(source, "<a cell>", {"__name__": "__main__"})
    assert any(given in str(one.message) for one in all_of_them)


def test_a_lesson_with_a_deprecated_call_fails(tmp_path, monkeypatch):
    """Its own cells, and one more that does what is going to be removed."""
    source = cells.source_of
    monkeypatch.setattr(cells, "source_of", lambda *asked: [*source(*asked)[:2], OUR_OWN["a method"][0], FINISH])
    with pytest.raises(
        AssertionError, match=r"01_data_audit calls what a library is about to remove: .*cell 2.*rsuffix"
    ):
        cells.run("01", tmp_path, {})


FINISH = "lesson.finish('done')"


def test_a_warning_that_python_lays_at_our_door_is_an_error_in_tests():
    """By the filters of pyproject.toml: where a library says by `stacklevel` whose call it is."""
    with pytest.raises(FutureWarning):
        warnings.warn("ours", FutureWarning, stacklevel=1)
    with pytest.raises(DeprecationWarning):
        warnings.warn("ours", DeprecationWarning, stacklevel=1)
    warnings.warn_explicit("theirs", DeprecationWarning, "library.py", 1, module="library")
