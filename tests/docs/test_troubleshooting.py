"""What the page quotes is what the programs print, and its commands are commands."""

import ast
import importlib.util
import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from ftlab import cli

ANY = "\0"  # stands in a template for a part that differs
# Where a library says what is quoted; to read all of its source would take long.
SPOKEN_IN = {
    "transformers": (
        "transformers.training_args",
        "transformers.tokenization_utils_base",
        "transformers.generation.utils",
        "transformers.modeling_layers",
        "transformers.pipelines",
        "transformers.utils.loading_report",
    ),
    "peft": ("peft.tuners.tuners_utils",),
    "torch": ("torch.amp.grad_scaler",),
    "evaluate": ("evaluate.loading",),
    "tqdm": ("tqdm.notebook",),
    "jupyter": ("jupyter_server.serverapp",),
    "python": ("multiprocessing.spawn",),
}


@pytest.fixture(scope="module")
def page(repository) -> str:
    return (repository / "docs" / "troubleshooting.md").read_text(encoding="utf-8")


def quotes(page: str) -> list[tuple[str, str]]:
    """Who speaks, and what, of each quoted message."""
    return re.findall(r"^> (\w+): (.+)$", page, re.MULTILINE)


def templates(source: str) -> Iterator[str]:
    """Every string of a module as it is printed, with ANY for what is put in."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            text = "".join(part.value if isinstance(part, ast.Constant) else ANY for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        else:
            continue
        yield " ".join(re.sub(r"\{[^{}]*\}|%[is]", ANY, text).split())


def says(template: str, quote: str) -> bool:
    """Whether a program that prints `template` may print `quote`, in which "…" stands for what differs."""
    place = 0
    for piece in quote.split("…"):
        found = template.find(piece.strip(), place)
        if found < 0:
            return False
        place = found + len(piece.strip())
    return True


def test_each_sentence_of_ftlab_is_one_that_it_prints(page, repository):
    files = [*(repository / "ftlab").rglob("*.py"), repository / "bootstrap.py"]
    spoken = [text for file in files if file.is_file() for text in templates(file.read_text(encoding="utf-8"))]
    for speaker, quote in quotes(page):
        if speaker == "ftlab":
            assert any(says(text, quote) for text in spoken), f"ftlab never says: {quote}"


@pytest.mark.parametrize("library", SPOKEN_IN)
def test_each_sentence_of_a_library_is_one_that_it_prints(page, library):
    spoken: list[str] = []
    for module in SPOKEN_IN[library]:
        found = importlib.util.find_spec(module)
        if found is None or found.origin is None:
            pytest.skip(f"{module} is not installed")
        spoken += templates(Path(found.origin).read_text(encoding="utf-8"))
    said = [quote for speaker, quote in quotes(page) if speaker == library]
    assert said
    for quote in said:
        assert any(says(text, quote) for text in spoken), f"{library} never says: {quote}"


def test_the_arguments_that_are_said_to_be_gone_are_gone(page):
    import transformers

    gone = [quote for speaker, quote in quotes(page) if speaker == "TypeError"]
    assert gone
    for quote in (each.replace("`", "") for each in gone):
        function, argument = re.match(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", quote).groups()
        assert argument not in inspect.signature(getattr(transformers, function)).parameters


def test_nobody_else_speaks(page):
    assert {speaker for speaker, _ in quotes(page)} == {"ftlab", "TypeError", *SPOKEN_IN}
    assert len(re.findall(r"^>", page, re.MULTILINE)) == len(quotes(page))


def commands(page: str) -> list[list[str]]:
    """The words of each command in the page, without the variables before it."""
    found = []
    for code in re.findall(r"`([^`\n]+)`", re.sub(r"^>.*$", "", page, flags=re.MULTILINE)):
        words = shlex.split(code, posix="\\" not in code)
        while words and re.match(r"[A-Z_]+=", words[0]):
            words.pop(0)
        named_alone = words[1:] in (["generate"], ["merge"], ["export"])  # without what it works on
        if words and Path(words[0]).name in ("ftlab", "make") and len(words) > 1 and not named_alone:
            found.append(words)
    return found


def test_each_command_is_one(page, repository):
    targets = set(re.findall(r"^([a-z]+):", (repository / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    asked = commands(page)
    assert len(asked) > 10
    for words in asked:
        if Path(words[0]).name == "make":
            assert {word for word in words[1:] if "=" not in word} <= targets, words
        else:
            cli._parser().parse_args(words[1:])


def test_every_symptom_says_what_to_do(page):
    parts = re.split(r"^### (.+)$", page, flags=re.MULTILINE)[1:]
    for symptom, text in zip(parts[::2], parts[1::2], strict=True):
        own = re.sub(r"^(>|## ).*$", "", text, flags=re.MULTILINE).strip()
        assert len(own) > 60, symptom
