"""`ftlab generate` and `ftlab merge`: what they print, what they leave, and one line for what they cannot do."""

import io
import json
import os
import shutil
import subprocess
import sys

import pytest

from ftlab.adapters import lora
from ftlab.data import alpaca_chat
from ftlab.data.prompts import ALPACA
from ftlab.inference import Generator
from ftlab.merging import certificate
from ftlab.merging import merge as merging
from ftlab.models import generation, loading
from tests.command_line import ftlab
from tests.merging.merge_cases import adapted, save_base, tensors

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False"),
]
PROMPTS = ["Rain.", 'A café "noir"', "The dragon looks like it was drawn by a committee", "A quiet film"]
NEW = 8


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("bases") / "base", "llama", initializer_range=0.5, vocab_size=640)


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    return lora.save(adapted(base, size=0.3), tmp_path_factory.mktemp("adapters") / "adapter", str(base))


@pytest.fixture
def piped(monkeypatch):
    """A function that puts lines into stdin."""

    def pipe(*lines):
        text = "".join(f"{line}\n" for line in lines).encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text), encoding="ascii"))

    return pipe


def expected(base, adapter=None, prompts=PROMPTS, **options):
    found = Generator.load(base, adapter, device="cpu").answer(prompts, max_new_tokens=NEW, **options)
    return [
        {"prompt": prompt, "answer": one.text, "stopped": one.stopped, "tokens": one.tokens}
        for prompt, one in zip(PROMPTS, found, strict=True)
    ]


def lines_of(out):
    return [json.loads(line) for line in out.splitlines()]


def test_each_line_of_a_pipe_gets_its_answer_as_a_json_object(capsys, base, piped):
    piped(*PROMPTS)
    code, out, err = ftlab(capsys, "generate", base, "--max-new-tokens", NEW, "--json")
    assert (code, err) == (0, [])
    assert lines_of(out) == expected(base)
    assert "café" in out


def test_without_it_the_answers_alone_are_printed(capsys, base, piped):
    piped(*PROMPTS)
    code, out, err = ftlab(capsys, "generate", base, "--max-new-tokens", NEW)
    assert (code, err) == (0, [])
    assert out == "".join(f"{line['answer']}\n" for line in expected(base))


def test_answers_of_several_lines_are_told_of_since_lines_no_longer_stand_for_prompts(capsys, base, piped, monkeypatch):
    answers = [generation.Answer("one\ntwo", 3, True), generation.Answer("three", 1, True)]
    monkeypatch.setattr(Generator, "answer", lambda self, prompts, **options: answers[: len(prompts)])
    piped(*PROMPTS[:2])
    code, out, (line,) = ftlab(capsys, "generate", base)
    assert (code, out) == (0, "one\ntwo\nthree\n")
    assert line == "ftlab: 1 of 2 answers have more than one line; --json keeps each on one"
    piped(PROMPTS[0])
    assert ftlab(capsys, "generate", base) == (0, "one\ntwo\n", [])  # of a single answer nothing is unclear


def test_a_file_gets_the_text_exactly_and_a_terminal_nothing_that_it_would_obey(capsys, base, piped, monkeypatch):
    said = "a\r\n\u2067\u05d0\u2069 \x1b[2J\\x1b"
    monkeypatch.setattr(Generator, "answer", lambda self, prompts, **options: [generation.Answer(said, 3, True)])
    piped(PROMPTS[0])
    assert ftlab(capsys, "generate", base) == (0, f"{said}\n", [])
    piped(PROMPTS[0])
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert ftlab(capsys, "generate", base)[1] == "a\\x0d\n\\u2067\u05d0\\u2069 \\x1b[2J\\x1b\n"


def test_an_adapter_answers_for_its_base(capsys, base, adapter, piped):
    piped(*PROMPTS)
    arguments = ["generate", base, "--adapter", adapter, "--max-new-tokens", NEW, "--batch-size", 1, "--json"]
    code, out, err = ftlab(capsys, *arguments)
    assert (code, err) == (0, [])
    assert lines_of(out) == expected(base, adapter) != expected(base)


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".jsonl"])
def test_prompts_come_from_a_file_too(capsys, base, tmp_path, suffix):
    file, arguments = tmp_path / f"prompts{suffix}", ["--prompt", "question"]
    if suffix == ".txt":
        file.write_text("".join(f"{prompt}\n" for prompt in PROMPTS), encoding="utf-8")
        arguments = []
    elif suffix == ".csv":
        rows = [prompt.replace('"', '""') for prompt in PROMPTS]
        file.write_text("id,question\n" + "".join(f'1,"{row}"\n' for row in rows), encoding="utf-8")
    else:
        file.write_text("".join(json.dumps({"question": prompt}) + "\n" for prompt in PROMPTS), encoding="utf-8")
    _, out, err = ftlab(capsys, "generate", base, file, *arguments, "--max-new-tokens", NEW, "--json")
    assert err == []
    assert lines_of(out) == expected(base)


def test_instructions_get_the_format_that_lesson_04_trains(capsys, base, piped):
    piped(*PROMPTS)
    _, out, _ = ftlab(capsys, "generate", base, "--instruct", "--max-new-tokens", NEW, "--json")
    assert lines_of(out) == expected(base, prompts=[ALPACA.prompt({"instruction": prompt}) for prompt in PROMPTS])


CHAT = "{% for m in messages %}<|endoftext|>{{ m.role }}: {{ m.content }}{% endfor %}<|endoftext|>assistant:"


@pytest.fixture
def chat_model(base, tmp_path):
    """The base, with a chat template."""
    folder = shutil.copytree(base, tmp_path / "chat")
    (folder / "chat_template.jinja").write_text(CHAT, encoding="utf-8")
    return folder


@pytest.mark.parametrize("system", [None, "Be kind."])
def test_a_chat_puts_the_model_s_own_template_around_each_prompt(capsys, chat_model, piped, system):
    piped(*PROMPTS)
    told = [] if system is None else ["--system", system]
    code, out, err = ftlab(capsys, "generate", chat_model, "--chat", *told, "--max-new-tokens", NEW, "--json")
    assert (code, err) == (0, [])
    assert lines_of(out) == expected(chat_model, chat=True, system=system) != expected(chat_model)


def test_a_template_that_is_not_used_is_told_of_and_stdout_stays_clean(capsys, chat_model, piped):
    for arguments in ([], ["--json"]):
        piped(*PROMPTS)
        code, out, err = ftlab(capsys, "generate", chat_model, "--max-new-tokens", NEW, *arguments)
        assert (code, len(err)) == (0, 1)
        assert f"{chat_model} has a chat template, and the prompts are used without it; --chat puts each" in err[0]
        assert "template" not in out
    assert lines_of(out) == expected(chat_model)


def test_a_format_that_the_model_may_not_know_is_told_of_in_one_line(
    capsys, chat_model, base, adapter, tmp_path, piped
):
    tokenizer = loading.tokenizer(str(base))
    headings = alpaca_chat.with_template(tokenizer, ALPACA).chat_template
    trained = {"none": adapter}
    for name, template in {"alpaca": headings, "chat": CHAT}.items():
        trained[name] = shutil.copytree(adapter, tmp_path / f"in {name}")
        (trained[name] / "chat_template.jinja").write_text(template, encoding="utf-8")
    told = {
        (chat_model, None, "--instruct"): f"{chat_model} has a chat template, which is another format than --instruct",
        (chat_model, "alpaca", "--instruct"): "",
        (chat_model, "alpaca", "--chat"): "",
        (chat_model, "chat", "--instruct"): f"{trained['chat']} has a chat template, which is another format",
        (chat_model, "none", "--chat"): f"{adapter} does not say in which format it was trained",
        (base, "chat", "--chat"): "",
        (base, "alpaca", "--chat"): "",
        (base, "none", "--instruct"): "",
        (base, "alpaca", "--instruct"): "",
    }
    answers = {}
    for (model, name, flag), line in told.items():
        piped(*PROMPTS)
        beside = ["--adapter", trained[name]] if name else []
        code, out, err = ftlab(capsys, "generate", model, *beside, flag, "--max-new-tokens", 2, "--json")
        assert (code, len(err)) == (0, int(bool(line)))
        assert line in "".join(err)
        answers[model, name, flag] = out
    assert answers[base, "alpaca", "--chat"] == answers[base, "alpaca", "--instruct"]  # the same format twice
    piped(*PROMPTS)
    code, out, err = ftlab(capsys, "generate", base, "--adapter", trained["alpaca"], "--chat", "--system", "Be kind.")
    assert (code, out, len(err)) == (2, "", 1)
    assert "have no system turn); leave the system text out" in err[0]


def test_a_merged_adapter_is_asked_in_its_own_format(capsys, chat_model, tmp_path, piped):
    headings = alpaca_chat.with_template(loading.tokenizer(str(chat_model)), ALPACA).chat_template
    made = lora.save(adapted(chat_model), tmp_path / "made", str(chat_model), chat_template=headings)
    assert ftlab(capsys, "merge", chat_model, made, tmp_path / "out")[0] == 0
    answers = []
    for flag in ("--chat", "--instruct"):
        piped(*PROMPTS)
        code, out, err = ftlab(capsys, "generate", tmp_path / "out", flag, "--max-new-tokens", NEW, "--json")
        assert (code, err) == (0, [])
        answers.append(out)
    assert answers[0] == answers[1]
    assert "The chat template is the adapter's" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_the_model_s_own_end_tokens_end_and_its_other_rules_are_told_of(capsys, base, tmp_path, piped):
    folder = shutil.copytree(base, tmp_path / "rules")
    plain, tokenizer = expected(base), loading.tokenizer(str(base))
    end = tokenizer(plain[0]["answer"])["input_ids"][2]
    written = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    written |= {"eos_token_id": [written.get("eos_token_id") or 0, end], "repetition_penalty": 1.3}
    (folder / "generation_config.json").write_text(json.dumps(written), encoding="utf-8")
    piped(*PROMPTS)
    code, out, err = ftlab(capsys, "generate", folder, "--max-new-tokens", NEW, "--json")
    found = lines_of(out)
    assert (code, len(err)) == (0, 1)
    assert "with repetition_penalty 1.3; it is ignored" in err[0]
    assert found[0]["stopped"]
    assert found[0]["tokens"] <= 3
    assert all(plain[place]["answer"].startswith(line["answer"]) for place, line in enumerate(found))


def commands_of_the_page(repository):
    lines = (repository / "docs" / "use_a_model.md").read_text(encoding="utf-8").splitlines()
    return [line.split("#")[0].strip() for line in lines if line.startswith("ftlab generate ")]


def test_what_its_page_says_of_generate_runs(capsys, chat_model, adapter, piped, repository):
    commands = commands_of_the_page(repository)
    assert {"--chat", "--instruct", "--adapter"} <= {word for command in commands for word in command.split()}
    for command in commands:
        given, _, file = command.partition(" < ")
        assert file.endswith(".txt")
        places = {"OUT": chat_model, "smollm2": chat_model, "ADAPTER": adapter}
        piped(*PROMPTS)
        code, out, _ = ftlab(capsys, *(places.get(word, word) for word in given.split()[1:]), "--max-new-tokens", 2)
        assert code == 0, command
        assert out


def test_what_is_drawn_depends_on_the_seed_alone(capsys, base, piped):
    found = []
    for seed in ([], ["--seed", 0], ["--seed", 1]):
        piped(*PROMPTS)
        found.append(ftlab(capsys, "generate", base, "--max-new-tokens", NEW, "--temperature", 3, *seed, "--json")[1])
    assert found[0] == found[1] != found[2]
    assert found[0] != "".join(json.dumps(line) + "\n" for line in expected(base))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["base", "blank.txt"], "prompt 1 is ''; expected a text with something in it"),
        (["base", "blank.txt"], "blank.txt, line 2: prompt 1 is"),
        (["base", "blank.csv", "--prompt", "text"], "blank.csv, row 3: prompt 2 is ''; expected a text"),
        (["base", "blank.jsonl"], "blank.jsonl, row 2: prompt 1 is ' '; expected a text"),
        (["base", "short.txt", "--chat"], "the model brings no chat template"),
        (["base", "short.txt", "--chat", "--instruct"], "--chat is the model's own format and --instruct"),
        (["base", "short.txt", "--system", "Be kind."], "--system needs a chat; add --chat"),
        (["base", "long.txt"], "tokens, and with 8 new ones that makes"),
        (["base", "short.txt", "--max-new-tokens", "0"], "--max-new-tokens is 0; expected at least 1"),
        (
            ["base", "short.txt", "--max-new-tokens", "128"],
            "the model has positions for 128: shorten the prompt or lower",
        ),
        (["base", "short.txt", "--batch-size", "0"], "--batch-size is 0; expected at least 1"),
        (["base", "short.txt", "--batch-size", "many"], "invalid int value: 'many'"),
        (["base", "short.txt", "--seed", "1"], "add a --temperature, or leave --seed out"),
        (["base", "short.txt", "--temperature", "0"], "temperature is 0.0"),
        (["base", "short.txt", "--temperature", "1", "--seed", "-1"], "seed is -1; expected a whole number"),
        (["base", "rows.csv"], "rows.csv has no column 'prompt'; it has text"),
        (["base", "nowhere.txt"], "nowhere.txt does not exist"),
        (["base", "empty.txt"], "empty.txt is empty"),
        (["base", "short.txt", "--adapter", "nowhere"], "nowhere is no adapter: it has no adapter_config.json"),
        (["base", "short.txt", "--adapter", "~nosuchuser/a"], "~nosuchuser/a cannot be looked at"),
        (["base", "short.txt", "--adapter", "a" * 300], "cannot be looked at"),
        (["~nosuchuser/m", "short.txt"], "~nosuchuser/m cannot be looked at"),
        (["m" * 300, "short.txt"], "cannot be looked at"),
        (["base", "m" * 300 + ".txt"], "cannot be looked at"),
        (["base", "short.txt", "--adapter", "hollow"], "hollow is no adapter: it has no adapter_model.safetensors"),
        (["tiny-gpt2", "short.txt", "--adapter", "adapter"], "was trained on base (weights "),
        (["merged", "short.txt", "--adapter", "adapter"], "merged is a merged model (it has a certificate.json)"),
        (["adapter", "short.txt"], "adapter is an adapter, not a model"),
        (["tiny-distilbert", "short.txt"], "tiny-distilbert is not a causal language model (DistilBertModel)"),
        (["classifier", "short.txt"], "is not a causal language model (DistilBertForSequenceClassification)"),
        (["gpt9", "short.txt"], "there is no model 'gpt9'"),
        ([], "the following arguments are required: model"),
    ],
)
def test_what_cannot_be_answered_is_one_line_and_exit_code_2(
    capsys, tmp_path, monkeypatch, base, adapter, classifier_folder, arguments, message
):
    files = {"blank.txt": "a film\n\nmore\n", "long.txt": "a film " * 60, "short.txt": "a film\n", "empty.txt": "",
             "rows.csv": "text\na film\n", "blank.csv": "id,text\n1,a film\n2,\"two\nlines\"\n3,\n",
             "blank.jsonl": '{"prompt": "a film"}\n{"prompt": " "}\n'}  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    for name, folder in {"base": base, "adapter": adapter, "classifier": classifier_folder}.items():
        (tmp_path / name).symlink_to(folder)
    if "merged" in arguments:
        merging.merge(base, adapter, tmp_path / "merged")
        (tmp_path / "merged" / certificate.RECORD).write_text("{}", encoding="utf-8")
    (tmp_path / "hollow").mkdir()
    (tmp_path / "hollow" / "adapter_config.json").write_text("{}", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    length = [] if "--max-new-tokens" in arguments or not arguments else ["--max-new-tokens", "8"]
    code, out, err = ftlab(capsys, "generate", *arguments, *length)
    assert (code, out, len(err)) == (2, "", 1)
    assert message in err[0]


def test_an_empty_pipe_is_told_as_one(capsys, base, piped):
    piped()
    assert ftlab(capsys, "generate", base) == (2, "", ["ftlab: stdin has no rows; expected at least one text"])


def test_a_process_of_its_own_keeps_stdout_clean(base, adapter):
    command = [sys.executable, "-m", "ftlab.cli", "generate", base, "--adapter", adapter, "--max-new-tokens", str(NEW)]
    lines, one_thread = "".join(f"{prompt}\n" for prompt in PROMPTS), os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "--json"], input=lines, env=one_thread, capture_output=True, text=True, check=True)
    assert [line["prompt"] for line in lines_of(done.stdout)] == PROMPTS
    assert done.stderr == ""


def test_a_merge_prints_its_certificate_and_leaves_a_model_that_answers_as_the_adapter(capsys, base, adapter, tmp_path):
    out = tmp_path / "new" / "merged"
    code, said, err = ftlab(capsys, "merge", base, adapter, out)
    assert (code, err) == (0, [])
    assert said.startswith("## Merge certificate\n\nPassed. The same 12 texts")
    assert said.splitlines()[-1] == f"the merged model: {out}; its certificate: {out / 'certificate.json'}"
    assert json.loads((out / "certificate.json").read_text(encoding="utf-8"))["ok"]
    assert expected(out) == expected(base, adapter)


def test_texts_of_ones_own_are_measured_and_the_record_is_one_json_object(capsys, base, adapter, tmp_path):
    (tmp_path / "texts.csv").write_text("body\na dull film\nthe best thing this year\n", encoding="utf-8")
    arguments = ["merge", base, adapter, tmp_path / "out", "--prompts", tmp_path / "texts.csv", "--prompt", "body"]
    code, said, err = ftlab(capsys, *arguments, "--json")
    assert (code, err, len(said.splitlines())) == (0, [], 1)
    found = json.loads(said)
    tokens = len(loading.tokenizer(str(base))("a dull film")["input_ids"])
    assert (found["ok"], found["prompts"], found["out"]) == (True, 2, str(tmp_path / "out"))
    assert found["positions"] > tokens


def test_a_merge_finds_the_home_folder(capsys, base, adapter, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "adapter").symlink_to(adapter)
    code, said, _ = ftlab(capsys, "merge", base, "~/adapter", "~/out", "--json")
    assert (code, json.loads(said)["out"]) == (0, str(tmp_path / "out"))
    assert (tmp_path / "out" / "config.json").is_file()


def test_a_model_of_the_course_is_merged_by_name(capsys, tmp_path):
    model = adapted(loading.folder("tiny-phi"))
    adapter = lora.save(model, tmp_path / "adapter", "tiny-phi")
    assert ftlab(capsys, "merge", "tiny-phi", adapter, tmp_path / "out")[0] == 0
    assert len(tensors(tmp_path / "out")) == len(tensors(loading.folder("tiny-phi")))


def test_a_merge_that_is_wrong_leaves_nothing_and_exit_code_1(capsys, base, adapter, tmp_path, monkeypatch):
    right = merging.add
    monkeypatch.setattr(merging, "add", lambda weight, factors, scaling, kind: right(weight, factors, -scaling, kind))
    code, out, err = ftlab(capsys, "merge", base, adapter, tmp_path / "out")
    assert (code, out, len(err)) == (1, "", 1)
    assert "does not do what the adapter does" in err[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["base", "nowhere", "out"], "nowhere is no adapter"),
        (["nowhere", "adapter", "out"], "there is no model 'nowhere'"),
        (["tiny-phi", "adapter", "out"], "was trained on base (weights "),
        (["classifier", "adapter", "out"], "is not a causal language model (DistilBertForSequenceClassification)"),
        (["strange", "adapter", "out"], "strange cannot be loaded"),
        (["base", "adapter", "full"], "full is not empty; give a new folder"),
        (["base", "adapter", "base"], "is the base's own folder"),
        (["base", "adapter", "out", "--prompts", "nowhere.txt"], "nowhere.txt does not exist"),
        (["base", "adapter", "out", "--prompts", "one.txt"], "prompt 1 is empty or a single token"),
        (["base", "adapter"], "the following arguments are required: out"),
        (["base", "adapter", "out", "--prompt", "prompt"], "--prompt names a column of the file in --prompts; give"),
        (["~nosuchuser/m", "adapter", "out"], "~nosuchuser/m cannot be looked at"),
        (["m" * 300, "adapter", "out"], "cannot be looked at"),
        (["base", "~nosuchuser/a", "out"], "~nosuchuser/a cannot be looked at"),
        (["base", "a" * 300, "out"], "cannot be looked at"),
        (["base", "adapter", "~nosuchuser/out"], "~nosuchuser/out cannot be looked at"),
    ],
)
def test_a_merge_that_cannot_be_made_is_one_line_and_exit_code_2(
    capsys, tmp_path, monkeypatch, base, adapter, classifier_folder, arguments, message
):
    for name, folder in {"base": base, "adapter": adapter, "classifier": classifier_folder}.items():
        (tmp_path / name).symlink_to(folder)
    for name in ("full", "strange"):
        (tmp_path / name).mkdir()
    for file in base.iterdir():
        (tmp_path / "strange" / file.name).symlink_to(file)
    config = json.loads((base / "config.json").read_text(encoding="utf-8")) | {"model_type": "hopfield9"}
    (tmp_path / "strange" / "config.json").unlink()
    (tmp_path / "strange" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "full" / "mine").write_text("mine", encoding="utf-8")
    (tmp_path / "one.txt").write_text("a film\na\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    code, out, err = ftlab(capsys, "merge", *arguments)
    assert (code, out, len(err)) == (2, "", 1)
    assert message in err[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == before
