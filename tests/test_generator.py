"""A generator: the same answers in any batch, from any adapter after any other, and one sentence for what cannot be."""

import copy
import json
import shutil
import threading

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import processors

from ftlab.adapters import lora
from ftlab.data.chat import Chat
from ftlab.data.prompts import ALPACA, Template, prompt_ids
from ftlab.errors import BadInput
from ftlab.inference import Generator
from ftlab.merging import certificate
from ftlab.models import generation, loading
from ftlab.models.generation import Sampling
from tests.merging.merge_cases import NAMES, TARGETS, adapted, save_base
from tests.nightly import few_by_day

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False", "ignore:The following .*_pattern keys"),
]
NEW = 10
PROMPTS = [
    "Rain.",
    "The dragon looks like it was drawn by a committee",
    "I",
    "A quiet film about bees and",
    "Two hours of nothing, and then ",
]
KINDS = {
    "lora": {},
    "rslora": {"r": 8, "use_rslora": True},
    "patterns": {"rank_pattern": {"v_proj": 2, "c_proj": 2}, "alpha_pattern": {"q_proj": 5, "c_attn": 5}},
    "dora": {"use_dora": True},
    "head": {"modules_to_save": ["lm_head"]},  # not for GPT-2, whose head is its embedding
    "elsewhere": {"target_modules": "all-linear"},
    "regex": {"target_modules": r".*\.(q_proj|v_proj|down_proj|dense|fc1)"},
    "pissa": {"init_lora_weights": "pissa"},
    "biases": {"bias": "all"},
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """A base of each architecture whose weights are large enough to answer differently to different prompts."""
    folder = tmp_path_factory.mktemp("bases")
    return {name: save_base(folder / name, name, initializer_range=0.5, vocab_size=640) for name in NAMES}


@pytest.fixture(scope="module")
def saved(bases, tmp_path_factory):
    """The folder of an adapter, made when it is first asked for."""
    folder = tmp_path_factory.mktemp("adapters")

    def make(name, kind):
        path = folder / f"{name}-{kind}"
        if not path.exists():
            model = adapted(bases[name], seed=list(KINDS).index(kind), size=0.3, **KINDS[kind])
            lora.save(model, path, str(bases[name]))
        return path

    return make


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def merged(bases, saved, tmp_path_factory):
    out = tmp_path_factory.mktemp("merged") / "model"
    certificate.merge_with_certificate(bases["llama"], saved("llama", "lora"), out, PROMPTS[:2])
    return out


@pytest.fixture(scope="module")
def tiny():
    return Generator.load("tiny-gpt2", device="cpu")


def load(bases, saved, name, *kinds):
    return Generator.load(bases[name], {kind: saved(name, kind) for kind in kinds}, device="cpu")


def texts(generator):
    return [answer.text for answer in generator.answer(PROMPTS, max_new_tokens=NEW)]


def alone(base, folder=None):
    """What the base answers with this one adapter, or without any, by `adapters.load` and one prompt at a time."""
    model, tokenizer = loading.causal_lm(str(base)), loading.tokenizer(str(base))
    if folder is not None:
        model = lora.load(model, folder, str(base))
    rows = [tokenizer(text)["input_ids"] for text in PROMPTS]
    return [generation.generate(model, tokenizer, [row], max_new_tokens=NEW)[0].text for row in rows]


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.arange(3, 23).reshape(2, 10)).logits


def refusal(call, *arguments, **options):
    with pytest.raises(BadInput) as raised:
        call(*arguments, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("adapter", [None, "lora"])
def test_neither_the_batch_nor_the_order_of_prompts_changes_an_answer(bases, saved, name, adapter):
    generator = load(bases, saved, name, *([adapter] if adapter else []))
    single = [generator.answer([prompt], max_new_tokens=NEW)[0] for prompt in PROMPTS]
    assert len({answer.text for answer in single}) == len(PROMPTS)
    for batch in ({}, {"batch_size": 1}, {"batch_size": 2}, {"batch_size": 100}, {"tokens": 60}):
        assert generator.answer(PROMPTS, max_new_tokens=NEW, **batch) == single
    assert generator.answer(PROMPTS[::-1], max_new_tokens=NEW) == single[::-1]


def test_no_batch_has_more_prompts_than_allowed_and_its_prompts_are_of_like_length(tiny, monkeypatch):
    tiny.answer(["a", "a film"], max_new_tokens=1)  # the first batch of a model also tests what batches do to it
    seen = []
    answer = tiny.model.generate

    def watched(input_ids, **options):
        seen.append(input_ids.shape)
        return answer(input_ids=input_ids, **options)

    monkeypatch.setattr(tiny.model, "generate", watched)
    tiny.answer(["a" * length for length in (1, 9, 2, 8, 3)], max_new_tokens=2, batch_size=2)
    assert [rows for rows, _ in seen] == [2, 2, 1]
    assert [length for _, length in seen] == sorted((length for _, length in seen), reverse=True)


def test_a_model_of_the_course_loads_by_name_in_fp32_ready_to_answer(tiny):
    assert not tiny.model.training
    assert not any(parameter.requires_grad for parameter in tiny.model.parameters())
    assert {parameter.dtype for parameter in tiny.model.parameters()} == {torch.float32}
    assert (tiny.adapters, tiny.adapter) == ([], None)
    tiny.use(None)  # the base is all there is


def test_another_precision_is_taken_on_request():
    assert Generator.load("tiny-phi", dtype=torch.bfloat16, device="cpu").model.dtype == torch.bfloat16


def test_no_prompts_are_no_answers(tiny):
    assert tiny.answer([]) == []


def test_the_same_seed_draws_the_same_answers(tiny):
    drawn = [
        tiny.answer(PROMPTS, max_new_tokens=NEW, sampling=Sampling(seed=seed, temperature=3.0)) for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_tokenizer_and_a_model_of_ones_own_stay_as_they_are():
    model, tokenizer = loading.causal_lm("tiny-gpt2"), loading.tokenizer("tiny-gpt2")
    side = tokenizer.padding_side = "right"
    model.train()
    generator = Generator(model, tokenizer)
    generator.answer(PROMPTS, max_new_tokens=2)
    assert generator.tokenizer.padding_side == "left"
    assert (tokenizer.padding_side, model.training) == (side, True)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_tokenizer_without_a_pad_token_is_refused():
    tokenizer = loading.tokenizer("tiny-gpt2")
    tokenizer.pad_token = None
    assert "the tokenizer has no pad token" in refusal(Generator, loading.causal_lm("tiny-gpt2"), tokenizer)


def test_a_pad_token_without_an_embedding_row_is_refused_before_a_batch_needs_it():
    model, tokenizer = loading.causal_lm("tiny-gpt2"), loading.tokenizer("tiny-gpt2")
    tokenizer.add_special_tokens({"pad_token": "<filler>"})
    said = refusal(Generator, model, tokenizer)
    assert "pad token '<filler>' is number 601, and the model's embedding has 601 rows" in said
    assert "loading.match_pad_token(model, tokenizer)" in said
    loading.match_pad_token(model, tokenizer)
    assert len(Generator(model, tokenizer).answer(PROMPTS, max_new_tokens=2)) == len(PROMPTS)


def test_a_question_is_asked_in_the_format_that_lesson_04_trains(tiny):
    row = {"instruction": "Is it any good?", "input": "Two hours of nothing."}
    (expected,) = tiny.answer([ALPACA.prompt(row)], max_new_tokens=NEW)
    assert tiny.ask(row["instruction"], input=row["input"], max_new_tokens=NEW) == expected
    (expected,) = tiny.answer([ALPACA.prompt({"instruction": "Why?"})], max_new_tokens=NEW)
    assert tiny.ask("Why?", max_new_tokens=NEW) == expected
    other = Generator(tiny.model, tiny.tokenizer, template=Template("{instruction} {input}", "Q: {instruction} A:"))
    assert other.prompt("Why?") == "Q: Why? A:"


CHAT = "{% for m in messages %}{{ bos_token }}{{ m.role }}: {{ m.content }}{% endfor %}{{ bos_token }}assistant:"


@pytest.fixture
def chatty(bases):
    generator = Generator.load(bases["llama"], device="cpu")
    generator.tokenizer.chat_template = CHAT
    return generator


def test_a_chat_goes_on_from_the_ids_of_the_model_s_own_template(chatty):
    for system in (None, "Be kind."):
        told = [] if system is None else [{"role": "system", "content": system}]
        ids = [
            chatty.tokenizer.apply_chat_template([*told, {"role": "user", "content": text}], return_dict=False)
            for text in PROMPTS
        ]
        expected = generation.generate(chatty.model, chatty.tokenizer, ids, max_new_tokens=NEW)
        assert chatty.answer(PROMPTS, chat=True, system=system, max_new_tokens=NEW) == expected
        assert [chatty.ask(text, chat=True, system=system, max_new_tokens=NEW) for text in PROMPTS] == expected
        pieces = chatty.ask(PROMPTS[0], chat=True, system=system, max_new_tokens=NEW, stream=True)
        assert "".join(pieces) == expected[0].text
        assert expected != chatty.answer(PROMPTS, max_new_tokens=NEW)


def test_what_cannot_be_a_chat_is_one_sentence(chatty, tiny):
    assert "brings no chat template" in refusal(tiny.answer, ["a film"], chat=True)
    assert "brings no chat template" in refusal(tiny.ask, "Why?", chat=True, stream=True)
    assert "a system message needs a chat" in refusal(chatty.answer, ["a film"], system="Be kind.")
    assert "a chat has no separate input" in refusal(chatty.ask, "Why?", input="a film", chat=True)
    assert "prompt 1 is ' '" in refusal(chatty.answer, ["a film", " "], chat=True)
    assert "prompt 1 has" in refusal(chatty.answer, ["a film", "a film " * 60], chat=True)


def test_an_adapter_that_brings_a_chat_template_was_trained_in_it_and_is_asked_in_it(bases, saved, tmp_path):
    folders = {}
    for kind in ("lora", "rslora", "patterns"):
        folders[kind] = shutil.copytree(saved("llama", kind), tmp_path / kind)
    for kind in ("lora", "patterns"):
        (folders[kind] / "chat_template.jinja").write_text(CHAT, encoding="utf-8")
    generator = Generator.load(bases["llama"], folders, device="cpu")
    generator.mix("alike", {"lora": 1, "patterns": 1})
    generator.mix("unlike", {"lora": 1, "rslora": 1})
    for kind in ("lora", "patterns", "alike"):
        generator.use(kind)
        assert generator.chat_template == CHAT
        assert generator.answer(PROMPTS, chat=True, max_new_tokens=2)
    for kind in ("rslora", "unlike", None):
        generator.use(kind)
        assert generator.chat_template is None
        assert "brings no chat template" in refusal(generator.answer, PROMPTS, chat=True)


CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}" + (
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ROWS = [
    {"instruction": "Why?", "input": ""}, {"instruction": " a film ", "input": "A café\n\nof two"},
    {"instruction": "end <|im_end|> here", "input": "<|endoftext|>"},
]  # fmt: skip


@pytest.fixture(params=["no BOS", "a BOS of the tokenizer and one of the template"])
def turned(bases, request):
    """A generator that was trained in a chat format whose turns end with another token than EOS."""
    generator = Generator.load(bases["llama"], device="cpu")
    tokenizer = generator.tokenizer
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    generator.model.resize_token_embeddings(len(tokenizer))
    tokenizer.chat_template = CHATML
    if "BOS" in request.param[3:]:
        begin = tokenizer.bos_token
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", special_tokens=[(begin, tokenizer.bos_token_id)]
        )
        tokenizer.chat_template = "{{ bos_token }}" + CHATML
    return Generator(generator.model, tokenizer, template=Chat(tokenizer))


def test_a_model_that_was_trained_in_a_chat_format_is_asked_in_it(turned):
    ids = [turned.template.question_ids(row) for row in ROWS]
    assert [prompt_ids(turned.prompt(row["instruction"], row["input"]), turned.tokenizer) for row in ROWS] == ids
    ends = turned.template.ends
    expected = generation.generate(turned.model, turned.tokenizer, ids, max_new_tokens=NEW, ends=ends)
    asked = [turned.prompt(row["instruction"], row["input"]) for row in ROWS]
    assert turned.answer(asked, max_new_tokens=NEW) == expected
    assert [turned.ask(row["instruction"], input=row["input"], max_new_tokens=NEW) for row in ROWS] == expected


@pytest.mark.parametrize("chat", [False, True])
def test_an_answer_ends_at_the_token_that_ends_a_turn_of_its_format(turned, chat):
    end = turned.tokenizer.convert_tokens_to_ids("<|im_end|>")
    plain = turned.ask("Why?", chat=chat, max_new_tokens=NEW)
    with torch.no_grad():  # the end of a turn takes the place of the second token that the model writes
        ids = turned.template.prompt_ids("Why?")
        written = turned.model.generate(
            input_ids=torch.tensor([ids]), max_new_tokens=2, do_sample=False, pad_token_id=turned.tokenizer.pad_token_id
        )[0, -1]
        head = turned.model.get_output_embeddings().weight
        head[end] = head[written] * 1.01
    for found in (
        turned.ask("Why?", chat=chat, max_new_tokens=NEW),
        turned.answer(["Why?"] if chat else [turned.prompt("Why?")], chat=chat, max_new_tokens=NEW)[0],
    ):
        assert found.stopped
        assert found.tokens <= 2
        assert plain.text.startswith(found.text)
    assert "".join(turned.ask("Why?", chat=chat, max_new_tokens=NEW, stream=True)) == found.text


def test_a_prompt_whose_text_would_be_read_differently_from_training_is_one_sentence(turned, monkeypatch):
    monkeypatch.setattr(turned.template, "question_ids", lambda row: [1, 2])
    assert "ask with chat=True instead" in refusal(turned.prompt, "Why?")
    assert (
        turned.ask("Why?", chat=True, max_new_tokens=NEW) == turned.answer(["Why?"], chat=True, max_new_tokens=NEW)[0]
    )


@pytest.mark.parametrize("sampling", [None, Sampling(seed=4, temperature=3.0)], ids=["greedy", "sampled"])
def test_the_pieces_of_a_stream_are_the_answer(bases, saved, name, sampling):
    generator = load(bases, saved, name, "lora")
    for question in PROMPTS[:4]:
        pieces = list(generator.ask(question, max_new_tokens=40, sampling=sampling, stream=True))
        assert "".join(pieces) == generator.ask(question, max_new_tokens=40, sampling=sampling).text
        assert all(pieces)


def test_a_stream_that_nobody_reads_on_stops_the_model_and_leaves_it_as_it_was():
    generator = Generator(loading.causal_lm("tiny-gpt2").train(), loading.tokenizer("tiny-gpt2"))
    model, own = generator.model, generator.model.generation_config
    steps, threads = [], threading.active_count()
    model.register_forward_hook(lambda *_: steps.append(1))
    state = torch.get_rng_state()
    pieces = generator.ask("Why?", max_new_tokens=200, stream=True)
    next(pieces)
    pieces.close()
    assert len(steps) < 200
    assert threading.active_count() == threads
    assert model.training
    assert model.generation_config is own
    assert torch.equal(torch.get_rng_state(), state)


def test_a_failure_of_the_model_reaches_whoever_reads_the_stream(tiny, monkeypatch):
    def fail(**_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(tiny.model, "generate", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(tiny.ask("Why?", stream=True))


def test_switching_there_and_back_answers_as_each_adapter_loaded_alone(bases, saved, name):
    kinds = ["lora", "rslora", "dora", "elsewhere", *(["head"] if name != "gpt2" else [])]
    generator = load(bases, saved, name, *kinds)
    expected = {kind: alone(bases[name], saved(name, kind)) for kind in kinds} | {None: alone(bases[name])}
    assert len({tuple(found) for found in expected.values()}) == len(expected)
    assert generator.adapters == kinds
    assert generator.adapter == "lora"
    assert texts(generator) == expected["lora"]
    for kind in ("rslora", "lora", None, "lora", *kinds[::-1], None, None, "dora", "dora", "rslora"):
        generator.use(kind)
        assert generator.adapter == kind
        assert texts(generator) == expected[kind]
        assert not any(parameter.requires_grad for parameter in generator.model.parameters())
        assert not any(module.training for module in generator.model.modules())


def test_switching_loads_nothing_and_moves_no_weight(bases, saved, monkeypatch):
    generator = load(bases, saved, "llama", "lora", "dora")
    monkeypatch.setattr(loading, "causal_lm", None)
    before = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in generator.model.state_dict().items()}
    for kind in ("dora", None, "lora"):
        generator.use(kind)
        generator.answer(PROMPTS[:1], max_new_tokens=2)
    after = generator.model.state_dict()
    assert before.keys() == after.keys()
    assert all(after[name].data_ptr() == place for name, (place, _) in before.items())
    assert all(torch.equal(after[name], tensor) for name, (_, tensor) in before.items())


def test_one_adapter_needs_no_name(bases, saved):
    generator = Generator.load(bases["phi"], saved("phi", "lora"), device="cpu")
    assert generator.adapters == ["adapter"]
    assert texts(generator) == alone(bases["phi"], saved("phi", "lora"))


def test_switching_an_adapter_of_ones_own_leaves_it_to_train(bases):
    model = get_peft_model(loading.causal_lm(str(bases["phi"])), LoraConfig(target_modules=TARGETS["phi"], r=2))
    training = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    generator = Generator(model, loading.tokenizer(str(bases["phi"])))
    for name in (None, "default", None, "default"):
        generator.use(name)
        assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == training


THREE = {"rslora": 2, "patterns": -0.7, "lora": 0.25}


@pytest.mark.parametrize("weights", few_by_day([{"lora": 0.5, "rslora": 0.5}, THREE], THREE), ids=["two", "three"])
def test_a_mixture_adds_what_each_adapter_adds_times_its_weight(bases, saved, name, weights):
    generator = load(bases, saved, name, *weights)
    generator.mix("both", weights)
    assert generator.adapters == [*weights, "both"]
    assert generator.adapter == next(iter(weights))
    assert texts(generator) == alone(bases[name], saved(name, generator.adapter))
    generator.use("both")
    by_hand = loading.causal_lm(str(bases[name]))
    with torch.no_grad():
        for kind, weight in weights.items():
            one = lora.load(loading.causal_lm(str(bases[name])), saved(name, kind), str(bases[name]))
            for where, module in one.get_base_model().named_modules():
                if hasattr(module, "get_delta_weight"):
                    by_hand.get_submodule(where).weight += weight * module.get_delta_weight("default")
    torch.testing.assert_close(logits(generator.model), logits(by_hand), atol=1e-4, rtol=1e-4)
    assert not any(parameter.requires_grad for parameter in generator.model.parameters())
    generator.use(None)
    assert texts(generator) == alone(bases[name])


def test_a_mixture_in_half_precision_is_that_of_fp32_but_for_rounding(bases, saved):
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        folders = {kind: saved("llama", kind) for kind in ("lora", "rslora")}
        generator = Generator.load(bases["llama"], folders, dtype=dtype, device="cpu")
        generator.mix("both", {"lora": 0.5, "rslora": 0.5})
        generator.use("both")
        generator.answer(PROMPTS, max_new_tokens=2)
        found.append(logits(generator.model).float())
    assert (found[0] - found[1]).norm() < 0.05 * found[0].norm()


def test_a_mixture_can_be_made_while_the_base_answers(bases, saved):
    generator = load(bases, saved, "llama", "lora", "rslora")
    generator.use(None)
    generator.mix("both", {"lora": 1, "rslora": 1})
    assert generator.adapter is None
    assert texts(generator) == alone(bases["llama"])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"lora": 1, "loro": 1}, "there is no adapter 'loro'; there are lora, rslora, dora, elsewhere, head, regex"),
        ({"lora": 1}, "a mixture needs at least two adapters, and 1 is named"),
        ({}, "a mixture needs at least two adapters, and 0 is named"),
        ({"lora": float("nan"), "rslora": 1}, "the weight of 'lora' is nan; expected a finite number"),
        ({"lora": 1, "rslora": "half"}, "the weight of 'rslora' is 'half'"),
        ({"lora": 1, "dora": 1}, "the adapter 'dora' is a DoRA"),
        ({"head": 1, "lora": 1}, "the adapter 'head' has trained whole modules too (lm_head)"),
        ({"lora": 1, "elsewhere": 1}, "'lora' adapts 6 modules and 'elsewhere' 14, and they are not the same"),
        ({"lora": 1, "regex": 1}, "lora, regex cannot be mixed (all adapter configs should follow the same"),
    ],
)
def test_what_is_no_sum_of_matrices_is_not_mixed(bases, saved, weights, message):
    kinds = ["lora", "rslora", "dora", "elsewhere", "head", "regex"]
    generator = load(bases, saved, "llama", *kinds)
    assert message in refusal(generator.mix, "both", weights)
    assert generator.adapters == kinds
    assert texts(generator) == alone(bases["llama"], saved("llama", "lora"))


@pytest.mark.parametrize(
    ("taken", "message"),
    [("lora", "there is an adapter 'lora' already (lora, rslora)"), ("a.b", "cannot have the name 'a.b'")],
)
def test_a_mixture_needs_a_name_of_its_own(bases, saved, taken, message):
    generator = load(bases, saved, "llama", "lora", "rslora")
    assert message in refusal(generator.mix, taken, {"lora": 1, "rslora": 1})


@pytest.mark.parametrize(
    ("kind", "message"),
    [("pissa", "starts from a part of the base's weights"), ("biases", "the base's own biases")],
)
def test_an_adapter_that_changes_the_base_answers_alone_and_cannot_be_switched_off(bases, saved, kind, message):
    generator = load(bases, saved, "phi", kind)
    assert texts(generator) == alone(bases["phi"], saved("phi", kind))
    assert message in refusal(generator.use, None)
    assert texts(generator) == alone(bases["phi"], saved("phi", kind))
    for kinds in ((kind, "lora"), ("lora", kind)):
        assert message in refusal(load, bases, saved, "phi", *kinds)


@pytest.mark.parametrize("wanted", ["loro", ""])
def test_an_unknown_adapter_is_refused_with_those_there_are(bases, saved, tiny, wanted):
    generator = load(bases, saved, "llama", "lora", "rslora")
    assert refusal(generator.use, wanted) == f"there is no adapter {wanted!r}; there are lora, rslora"
    assert generator.adapter == "lora"
    one = load(bases, saved, "llama", "lora")
    assert refusal(one.use, wanted) == f"there is no adapter {wanted!r}; there is lora"
    assert refusal(tiny.use, wanted) == f"there is no adapter {wanted!r}; there are none, only the base"


@pytest.mark.parametrize("wanted", ["", "a.b", "keys", "forward"])
def test_a_name_that_pytorch_has_taken_is_refused(bases, saved, wanted):
    said = refusal(Generator.load, bases["llama"], {wanted: saved("llama", "lora")})
    assert f"an adapter cannot have the name {wanted!r}" in said


def test_a_merged_model_answers_as_its_adapter_did_and_takes_no_other(bases, saved, merged):
    expected = alone(bases["llama"], saved("llama", "lora"))
    assert texts(Generator.load(merged, device="cpu")) == expected
    for given in (saved("llama", "lora"), {"more": saved("llama", "rslora")}):
        said = refusal(Generator.load, merged, given)
        assert said.startswith(f"{merged} is a merged model (it has a certificate.json)")


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors", "base.json"])
def test_an_adapter_that_is_not_whole_is_refused(bases, saved, tmp_path, missing):
    shutil.copytree(saved("phi", "lora"), tmp_path / "adapter")
    (tmp_path / "adapter" / missing).unlink()
    assert f"has no {missing}" in refusal(Generator.load, bases["phi"], tmp_path / "adapter")


def test_an_adapter_of_a_model_with_more_tokens_is_refused(bases, tmp_path):
    base = save_base(tmp_path / "base", "llama")  # has no row for the pad token, which `loading.causal_lm` adds
    lora.save(adapted(base, modules_to_save=["lm_head"]), tmp_path / "adapter", str(base))
    said = refusal(Generator.load, base, tmp_path / "adapter")
    assert f"the adapter in {tmp_path / 'adapter'} has other shapes than the model (size mismatch for" in said


def test_an_adapter_of_another_base_is_refused_before_that_base_is_read(bases, saved, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "causal_lm", None)
    other = save_base(tmp_path / "other", "llama", initializer_range=0.4)
    said = refusal(Generator.load, other, {"fine": saved("llama", "lora")})
    assert f"the adapter in {saved('llama', 'lora')} was trained on llama" in said
    assert f"{other} has other weights" in said


def test_what_is_no_language_model_is_refused_and_said_what_it_is(bases, saved, classifier_folder, tmp_path):
    said = refusal(Generator.load, classifier_folder)
    assert said.startswith(f"{classifier_folder} is not a causal language model (DistilBertForSequenceClassification)")
    assert "is not a causal language model (DistilBertModel)" in refusal(Generator.load, "tiny-distilbert")
    assert f"{saved('phi', 'lora')} is an adapter, not a model" in refusal(Generator.load, saved("phi", "lora"))
    assert "there is no model 'gpt9'" in refusal(Generator.load, "gpt9")
    shutil.copytree(bases["phi"], tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"model_type": "hopfield9"}), encoding="utf-8")
    assert "cannot be loaded" in refusal(Generator.load, tmp_path / "model")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": [None]}, "is not a causal language model (it names no architecture)"),
        ({"architectures": "PhiForCausalLM"}, "is not a causal language model (it names no architecture)"),
        ({"num_attention_heads": 3}, "cannot be loaded"),
        ({"hidden_size": "wide"}, "cannot be loaded"),
    ],
    ids=["null", "a text", "heads that do not fit", "a text for a number"],
)
def test_a_config_with_impossible_values_is_one_sentence(bases, tmp_path, change, message):
    folder = shutil.copytree(bases["llama"], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | change), encoding="utf-8")
    said = refusal(Generator.load, folder)
    assert said.startswith(str(folder))
    assert message in said


@pytest.mark.parametrize("content", [b"{", b"", b"[]", b"\xff"])
def test_a_generation_config_that_cannot_be_read_is_refused_and_not_passed_over(bases, tmp_path, content):
    folder = shutil.copytree(bases["phi"], tmp_path / "model")
    (folder / "generation_config.json").write_bytes(content)
    assert f"{folder / 'generation_config.json'} cannot be read" in refusal(Generator.load, folder)
    (folder / "generation_config.json").unlink()
    assert Generator.load(folder, device="cpu").answer(["a film"], max_new_tokens=1)


@pytest.mark.parametrize("nothing", ["", "  \n\t", None, 5], ids=repr)
def test_a_prompt_with_nothing_in_it_is_refused_with_its_place(tiny, nothing):
    said = refusal(tiny.answer, ["a film", "another", nothing, ""])
    assert said == f"prompt 2 is {nothing!r}; expected a text with something in it"
    assert refusal(tiny.ask, nothing) == f"the question is {nothing!r}; expected a text that is not blank"


def test_one_prompt_alone_is_refused_and_not_read_letter_by_letter(tiny):
    assert refusal(tiny.answer, "a film") == "prompts is one text, 'a film'; expected a list of texts"


@pytest.mark.parametrize("stream", [False, True])
def test_more_tokens_than_the_model_has_positions_are_refused_at_once(bases, saved, tiny, stream):
    generator = load(bases, saved, "llama", "lora")
    said = refusal(generator.answer, ["short", "a film " * 60], max_new_tokens=20)
    tokens = len(generator.tokenizer("a film " * 60)["input_ids"])
    assert said.startswith(
        f"prompt 1 has {tokens} tokens, and with 20 new ones that makes {tokens + 20}; the model has"
    )
    assert "positions for 128" in said
    assert "positions for 256" in refusal(tiny.ask, "Why?", max_new_tokens=250, stream=stream)
    assert "max_new_tokens is 0" in refusal(tiny.ask, "Why?", max_new_tokens=0, stream=stream)


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_of_no_prompts_is_refused(tiny, size):
    assert refusal(tiny.answer, ["a film"], batch_size=size) == f"batch_size is {size}; expected at least 1"


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_that_pytorch_does_not_take_is_refused(seed):
    assert f"seed is {seed}; expected a whole number" in refusal(Sampling, seed=seed)


def test_a_copy_of_a_generator_s_tokenizer_is_its_own(tiny):
    assert Generator(tiny.model, tiny.tokenizer).tokenizer is not tiny.tokenizer
    assert copy.deepcopy(tiny.tokenizer).padding_side == "left"
