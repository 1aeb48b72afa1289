"""Answers of a model: the same in any batch and any order, ended by EOS alone, by the rules that were given."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from ftlab.errors import BadInput
from ftlab.models import generation, loading
from ftlab.models.generation import Sampling, generate

pytestmark = pytest.mark.usefixtures("one_thread")
NEW = 12
TEXTS = [
    "Rain.",
    "The dragon looks like it was drawn by a committee",
    "I",
    "A quiet film about bees and",
    "Walked out. " * 9,
]


def llama(tokenizer):
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=256, **shape))


def lively(model):
    """The model with larger weights: as small as fresh ones they answer the same to everything."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(12)
    return model


@pytest.fixture(scope="module")
def tokenizer():
    return loading.tokenizer("tiny-gpt2")


@pytest.fixture(scope="module")
def prompts(tokenizer):
    return [tokenizer(text)["input_ids"] for text in TEXTS]


@pytest.fixture(scope="module", params=["tiny-gpt2", "tiny-phi", "tiny-llama"])
def model(request, tokenizer):
    return lively(llama(tokenizer) if request.param == "tiny-llama" else loading.causal_lm(request.param))


@pytest.fixture(scope="module")
def loaded():
    return lively(loading.causal_lm("tiny-gpt2"))


@pytest.fixture
def gpt2(loaded):
    return copy.deepcopy(loaded)


class Scripted(torch.nn.Module):
    """Stands where a model's head stands, and says these tokens one after another, whatever it is asked."""

    def __init__(self, script, size):
        super().__init__()
        self.script, self.size, self.step = script, size, 0
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, hidden):
        logits = torch.zeros(*hidden.shape[:2], self.size)
        for row in range(len(logits)):
            script = self.script[row]
            logits[row, -1, script[min(self.step, len(script) - 1)]] = 50.0
        self.step += 1
        return logits


def saying(model, *script):
    model = copy.deepcopy(model)
    model.lm_head = Scripted(script, model.config.vocab_size)
    generation._batches_are_safe[model] = True  # a test of that would be the first steps of the script
    return model


def by_hand(model, prompt, end):
    """Greedy, one token at a time, the whole text read anew each time."""
    ids = list(prompt)
    for _ in range(NEW):
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == end:
            break
    return ids[len(prompt) :]


def test_an_answer_is_the_likeliest_token_each_time(model, tokenizer, prompts):
    found = generate(model, tokenizer, prompts, max_new_tokens=NEW)
    assert len({answer.text for answer in found}) > 1
    for prompt, answer in zip(prompts, found, strict=True):
        ids = by_hand(model.eval(), prompt, tokenizer.eos_token_id)
        assert answer.text == tokenizer.decode(ids, skip_special_tokens=True)
        assert answer.tokens == len(ids)


def test_neither_the_batch_nor_the_order_of_prompts_changes_an_answer(model, tokenizer, prompts):
    alone = [generate(model, tokenizer, [prompt], max_new_tokens=NEW)[0] for prompt in prompts]
    for tokens in (1, 60, 4096):
        assert generate(model, tokenizer, prompts, max_new_tokens=NEW, tokens=tokens) == alone
    assert generate(model, tokenizer, prompts[::-1], max_new_tokens=NEW) == alone[::-1]


@pytest.mark.parametrize("kind", ["rwkv", "xlm", "gpt2"])
def test_prompts_share_a_batch_only_if_that_does_not_change_an_answer(kind, tokenizer, monkeypatch):
    sizes = {
        "rwkv": {"hidden_size": 32, "attention_hidden_size": 32, "num_hidden_layers": 2, "context_length": 64},
        "xlm": {"emb_dim": 32, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 64},
        "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64},
    }
    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind](vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **sizes[kind])
    model = AutoModelForCausalLM.from_config(config)
    model = model if kind == "rwkv" else lively(model)  # twelve times its shares of two tokens would be noise
    rows = [tokenizer(text)["input_ids"] for text in ("Rain.", "A quiet film about bees and", "Rain.", "I")]
    alone = [generate(model, tokenizer, [row], max_new_tokens=4)[0] for row in rows]
    assert len({answer.text for answer in alone}) > 1
    shapes, answer = [], model.generate

    def watched(**options):
        shapes.append(tuple(options["input_ids"].shape))
        return answer(**options)

    monkeypatch.setattr(model, "generate", watched)
    for sampling in (None, Sampling(temperature=1e-9)):  # the second time, the model is known
        shapes.clear()
        assert generate(model, tokenizer, rows, max_new_tokens=4, sampling=sampling) == alone
    assert [count for count, _ in shapes] == ([4] if kind == "gpt2" else [1] * 4)
    if kind == "rwkv":  # it mixes rows, with and without padding
        alike = copy.deepcopy(model)
        assert generate(alike, tokenizer, [rows[0]] * 2, max_new_tokens=4) == [alone[0]] * 2


INDENTED = "    for each in films:\n        show(each)\n\n  done \n \u4e2d\u6587\u5b57\n"
DECODERS = {
    "Llama 2": (
        pre_tokenizers.Metaspace(prepend_scheme="first", split=False),
        decoders.Sequence([
            decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0),
        ]),
    ),
    "Metaspace": (pre_tokenizers.Metaspace(prepend_scheme="first"), decoders.Metaspace(prepend_scheme="first")),
    "bytes": (pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()),
}  # fmt: skip


@pytest.mark.parametrize("text", [INDENTED, "  a film .\n  It does n't end", "\n", " ", ""], ids=repr)
@pytest.mark.parametrize("kind", DECODERS)
def test_the_pieces_of_a_stream_are_the_answer_whatever_the_decoder_does_to_spaces(kind, text, gpt2):
    splitter, decoder = DECODERS[kind]
    alphabet = sorted({*pre_tokenizers.ByteLevel.alphabet(), "\u2581", *INDENTED})
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer, trained.decoder = splitter, decoder
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + 9, special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False
    )
    trained.train_from_iterator([text], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained, eos_token="</s>", pad_token="</s>")
    ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    assert max(ids) < gpt2.config.vocab_size
    (answer,) = generate(saying(gpt2, ids), tokenizer, [[5]], max_new_tokens=len(ids))
    assert answer.text.lstrip(" ") == text.lstrip(" ")
    pieces = list(generation.stream(saying(gpt2, ids), tokenizer, [5], max_new_tokens=len(ids)))
    assert "".join(pieces) == answer.text
    assert all(pieces)
    if text == INDENTED:
        assert len(pieces) > 5


def test_eos_ends_an_answer_is_counted_and_is_not_in_its_text(gpt2, tokenizer, prompts):
    end = tokenizer.eos_token_id
    good, film = tokenizer("good")["input_ids"], tokenizer(" film")["input_ids"]
    scripts = [[*good, end], [end], [*good, *film, end]]
    answers = generate(saying(gpt2, *scripts), tokenizer, [prompts[1]] * 3, max_new_tokens=NEW)
    assert [answer.text for answer in answers] == ["good", "", "good film"]
    assert [answer.tokens for answer in answers] == [len(script) for script in scripts]
    assert all(answer.stopped for answer in answers)


def test_an_answer_without_eos_is_as_long_as_allowed_and_did_not_stop(gpt2, tokenizer, prompts):
    (again,) = set(tokenizer("a")["input_ids"])
    end = tokenizer.eos_token_id
    endless, late = generate(saying(gpt2, [again], [again] * 4 + [end]), tokenizer, [prompts[0]] * 2, max_new_tokens=4)
    assert endless == late == generation.Answer("aaaa", 4, False)  # EOS as a fifth token comes too late
    (in_time,) = generate(saying(gpt2, [again] * 3 + [end]), tokenizer, prompts[:1], max_new_tokens=4)
    assert in_time == generation.Answer("aaa", 4, True)


def as_transformers_answers(model, tokenizer, prompt, **options):
    """What `model.generate` writes after one prompt by its own generation config, and whether it stopped."""
    with torch.no_grad():
        ids = torch.tensor([prompt])
        found = model.eval().generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False,
            pad_token_id=tokenizer.pad_token_id, **options,
        )[0, len(prompt) :].tolist()  # fmt: skip
    ends = {tokenizer.eos_token_id, *generation.end_tokens(model, tokenizer)}
    stopped = found[-1] in ends
    return generation.Answer(
        tokenizer.decode(found[:-1] if stopped else found, skip_special_tokens=True), len(found), stopped
    )


@pytest.mark.parametrize("wrapped", [False, True], ids=["alone", "in PEFT"])
def test_an_answer_ends_where_transformers_ends_it(model, tokenizer, prompts, wrapped):
    model = copy.deepcopy(model)
    written = [by_hand(model.eval(), prompt, tokenizer.eos_token_id) for prompt in prompts]
    own = [tokenizer.eos_token_id, written[0][1], written[1][4], model.config.vocab_size + 7]
    model.generation_config.eos_token_id = own
    if wrapped:
        targets = "c_attn" if hasattr(model, "transformer") else "q_proj"
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=[targets]))
    expected = [as_transformers_answers(model, tokenizer, prompt) for prompt in prompts]
    assert sum(answer.stopped for answer in expected) >= 2
    for tokens in (1, 4096):
        assert generate(model, tokenizer, prompts, max_new_tokens=NEW, tokens=tokens) == expected
    for prompt, answer in zip(prompts, expected, strict=True):
        pieces = generation.stream(model, tokenizer, prompt, max_new_tokens=NEW)
        assert "".join(pieces) == answer.text
    assert model.generation_config.eos_token_id == own


def test_rows_of_a_batch_end_at_different_tokens_which_may_be_the_padding_too(gpt2, tokenizer, prompts):
    good, bad, film, pad = (tokenizer(text)["input_ids"][0] for text in ("good", "b", " film", "p"))
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.pad_token_id = pad
    scripts = [[film, good, film], [bad], [film, pad, film], [film, tokenizer.eos_token_id, film], [film]]
    model = saying(gpt2, *scripts)
    model.generation_config.eos_token_id = [good, bad, pad]
    answers = generate(model, tokenizer, [prompts[1]] * len(scripts), max_new_tokens=6)
    assert [answer.text for answer in answers] == [" film", "", " film", " film", " film" * 6]
    assert [answer.tokens for answer in answers] == [2, 1, 2, 2, 6]
    assert [answer.stopped for answer in answers] == [True, True, True, True, False]


def test_the_end_tokens_are_the_tokenizer_s_and_those_that_the_model_itself_names(gpt2, tokenizer):
    end = tokenizer.eos_token_id
    gpt2.config.eos_token_id = 7
    for said, expected in [
        (5, [end, 5]), ([5, 6, end, 5], [end, 5, 6]), ([-1, None, 6], [end, 6]), (-1, [end]), ([], [end]),
        (None, [end, 7]),
    ]:  # fmt: skip
        gpt2.generation_config.eos_token_id = said
        assert generation.end_tokens(gpt2, tokenizer) == expected
    gpt2.generation_config = None
    assert generation.end_tokens(gpt2, tokenizer) == [end, 7]
    gpt2.config.eos_token_id = None
    bare = copy.deepcopy(tokenizer)
    bare.eos_token = None
    assert generation.end_tokens(gpt2, tokenizer) == [end]
    assert generation.end_tokens(gpt2, bare) == []


@pytest.mark.parametrize("strange", ["5", [5, "6"], 5.0, True, {"end": 5}], ids=repr)
def test_an_end_token_that_is_no_number_is_one_sentence(gpt2, tokenizer, prompts, strange):
    gpt2.generation_config.eos_token_id = strange
    with pytest.raises(BadInput, match="expected a whole number or a list of them") as caught:
        generate(gpt2, tokenizer, prompts, max_new_tokens=2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, {}),
        ({"eos_token_id": [1, 2], "pad_token_id": 3, "bos_token_id": 0, "max_length": 9, "use_cache": False}, {}),
        ({"repetition_penalty": 1.0, "num_beams": 1, "min_length": 0, "suppress_tokens": [], "do_sample": False}, {}),
        ({"temperature": 0.6, "top_p": 0.9}, {}),  # of drawing, and nothing is drawn
        ({"do_sample": True, "temperature": 0.6, "top_k": 40}, {"do_sample": True, "temperature": 0.6, "top_k": 40}),
        ({"repetition_penalty": 1.1, "forced_eos_token_id": 0}, {"repetition_penalty": 1.1, "forced_eos_token_id": 0}),
        ({"suppress_tokens": [4], "stop_strings": ["###"]}, {"suppress_tokens": [4], "stop_strings": ["###"]}),
    ],
)
def test_what_is_left_aside_is_told_where_it_would_change_answers(gpt2, said, expected):
    gpt2.generation_config = GenerationConfig(**said)
    assert generation.own_rules(gpt2) == expected
    gpt2.generation_config = None
    assert generation.own_rules(gpt2) == {}


def test_a_seed_gives_its_answers_again_and_leaves_the_generator_alone(gpt2, tokenizer, prompts):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    draws = [
        generate(gpt2, tokenizer, prompts, max_new_tokens=NEW, sampling=Sampling(seed=seed, temperature=5.0))
        for seed in (1, 1, 2)
    ]
    assert draws[0] == draws[1] != draws[2]
    assert torch.equal(torch.get_rng_state(), before)


def test_sampling_from_next_to_nothing_is_greedy(gpt2, tokenizer, prompts):
    greedy = generate(gpt2, tokenizer, prompts, max_new_tokens=NEW)
    for narrow in (Sampling(top_p=1e-6), Sampling(temperature=1e-6)):
        assert generate(gpt2, tokenizer, prompts, max_new_tokens=NEW, sampling=narrow) == greedy


GREEDY_HABITS = [
    {"do_sample": True, "temperature": 9.0},
    {"do_sample": True, "num_return_sequences": 2},
    {"repetition_penalty": 5.0},
    {"no_repeat_ngram_size": 1},
    {"num_beams": 3},
    {"min_new_tokens": 8},
    {"max_length": 3},
    {"suppress_tokens": list(range(50, 300))},
    {"forced_eos_token_id": 7},
    {"return_dict_in_generate": True},
]
SAMPLING_HABITS = [{"top_k": 2}, {"min_p": 0.9}, {"typical_p": 0.1}, {"epsilon_cutoff": 0.5}]


@pytest.mark.parametrize(
    ("habit", "sampling"),
    [(habit, None) for habit in GREEDY_HABITS] + [(habit, Sampling(temperature=9.0)) for habit in SAMPLING_HABITS],
    ids=lambda value: next(reversed(value)) if isinstance(value, dict) else "",
)
def test_what_a_model_s_own_generation_config_says_is_left_aside(gpt2, tokenizer, prompts, habit, sampling):
    end = tokenizer.eos_token_id
    model = gpt2 if sampling or "min_new_tokens" not in habit else saying(gpt2, [65, end], [66, end])
    plain = generate(model, tokenizer, prompts[:2], max_new_tokens=NEW, sampling=sampling)
    if hasattr(model.lm_head, "step"):
        model.lm_head.step = 0
    own = model.generation_config = GenerationConfig(**habit)
    assert generate(model, tokenizer, prompts[:2], max_new_tokens=NEW, sampling=sampling) == plain
    assert model.generation_config is own  # and nobody wrote into it
    assert {name: getattr(own, name) for name in habit} == habit


def test_so_is_what_the_model_inside_a_peft_wrapper_says(gpt2, tokenizer, prompts):
    plain = generate(gpt2, tokenizer, prompts, max_new_tokens=NEW)
    own = gpt2.generation_config = GenerationConfig(repetition_penalty=5.0)
    wrapped = get_peft_model(gpt2, LoraConfig(task_type="CAUSAL_LM", target_modules=["c_attn"], fan_in_fan_out=True))
    assert generate(wrapped, tokenizer, prompts, max_new_tokens=NEW) == plain  # a fresh adapter changes nothing
    assert wrapped.get_base_model().generation_config is own


def test_each_part_of_the_model_is_left_in_the_mode_it_was_in(gpt2, tokenizer, prompts):
    dropout = [module for module in gpt2.modules() if isinstance(module, torch.nn.Dropout)]
    assert any(module.p for module in dropout)
    answers = []
    for mode in (True, False):
        gpt2.train(mode)
        gpt2.transformer.h[0].train(not mode)
        before = [module.training for module in gpt2.modules()]
        answers.append(generate(gpt2, tokenizer, prompts, max_new_tokens=NEW))
        assert [module.training for module in gpt2.modules()] == before
    assert answers[0] == answers[1]  # no dropout while it answers


def test_a_failure_leaves_the_model_as_it_was_too(gpt2, tokenizer, prompts, monkeypatch):
    def fail(**_):
        raise RuntimeError("out of memory")

    own, state = gpt2.generation_config, torch.get_rng_state()
    monkeypatch.setattr(gpt2, "generate", fail)
    gpt2.train()
    with pytest.raises(RuntimeError, match="out of memory"):
        generate(gpt2, tokenizer, prompts, max_new_tokens=NEW)
    assert gpt2.training
    assert gpt2.generation_config is own
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("lengths", "new", "message"),
    [
        ([], 4, "there are no prompts to answer"),
        ([3, 0, 2], 4, "prompt 1 is empty"),
        (
            [3, 250, 2],
            2000,
            "prompt 1 has 250 tokens, and with 2,000 new ones that makes 2,250; "
            "the model has positions for {positions}",
        ),
        ([3], 0, "max_new_tokens is 0"),
    ],
)
def test_what_cannot_be_answered_is_one_sentence(model, tokenizer, lengths, new, message):
    message = message.format(positions=f"{model.config.max_position_embeddings:,}")
    with pytest.raises(BadInput, match=message) as caught:
        generate(model, tokenizer, [[65] * length for length in lengths], max_new_tokens=new)
    assert "\n" not in str(caught.value)


def test_a_prompt_may_use_the_last_position(model, tokenizer):
    assert len(generate(model, tokenizer, [[65] * 250, [66]], max_new_tokens=6)) == 2


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": float("nan")}, {"top_p": 0}, {"top_p": 1.1}])
def test_a_distribution_that_is_none_is_refused(options):
    with pytest.raises(BadInput, match="expected a temperature above 0 and a top_p above 0 and at most 1"):
        Sampling(**options)
