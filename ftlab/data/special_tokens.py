"""Special tokens in the text of a row stay text; those of a template and of the tokenizer are special.

A tokenizer turns "</s>" in a text into the id that ends a sequence. An answer that only mentions it would end there,
and a customer who types "[SEP]" would separate two segments. So the text of a row is read as plain text; special tokens
come from the tokenizer, and from the template around the row.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from ftlab.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Of the tokenizers and chat templates of BERT, T5, Llama, GPT, ChatML, Gemma, Phi and Mistral.
WELL_KNOWN = (
    "[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]", "<s>", "</s>", "<pad>", "<unk>", "<mask>", "<bos>", "<eos>",
    "<|endoftext|>", "<|startoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|end_of_text|>",
    "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<start_of_turn>", "<end_of_turn>",
    "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>",
)  # fmt: skip


class Prompt(str):
    """The text before an answer, with a record of the characters that come from the template.

    `own` has their ranges as (start, end). A special token there is special; anywhere else it is text.

    >>> Prompt.of([("<s>", True), ("Hi", False)]).own
    ((0, 3),)
    """

    own: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, parts: Iterable[tuple[str, bool]]) -> Prompt:
        """Return the text of all `parts`, each given with whether it comes from the template."""
        said, own, end = [], [], 0
        for text, of_template in parts:
            said.append(text)
            if of_template:
                own.append((end, end + len(text)))
            end += len(text)
        prompt = cls("".join(said))
        prompt.own = tuple(own)
        return prompt


# A cache: to list the special tokens takes longer than to read a text, and a tokenizer seldom gets new ones.
_listed: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[Hashable, dict[str, int]]] = WeakKeyDictionary()


def tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return the special tokens of `tokenizer`, as written in a text, and their ids."""
    if not hasattr(type(tokenizer), "added_tokens_decoder"):
        return {}
    state = len(tokenizer), str(tokenizer.special_tokens_map)
    if tokenizer not in _listed or _listed[tokenizer][0] != state:
        added = tokenizer.added_tokens_decoder.items()
        _listed[tokenizer] = state, {token.content: number for number, token in added if token.special}
    return _listed[tokenizer][1]


def unknown_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the id that `tokenizer` gives to unknown characters, or None if it can read every text."""
    unknown = tokenizer.unk_token_id
    rare = "\U0001faa9 \u1342 \U00012031"  # a disco ball, an Ethiopic and a cuneiform sign
    return unknown if unknown in tokenizer(rare, add_special_tokens=False)["input_ids"] else None


def pattern(names: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern that finds any of these token `names` in a text, the longest first."""
    return re.compile("|".join(map(re.escape, sorted({*names}, key=len, reverse=True))) or r"(?!)")


def plain_ids(
    text: str, tokenizer: PreTrainedTokenizerBase, *, add_special_tokens: bool = True, where: str = "the text"
) -> list[int]:
    """Return the ids of a text whose special tokens are read as text.

    For a text without special tokens these are the ids of the tokenizer itself.

    Args:
        text: of a row.
        tokenizer: of the model.
        add_special_tokens: whether to add what the tokenizer puts around every text.
        where: the place of the text, for messages.

    Raises:
        BadInput: the tokenizer makes a special token of the text in any case: a Unigram model has "</s>" as a piece.
    """
    special = _ids(tokenizer)
    options = {} if add_special_tokens else {"add_special_tokens": False}
    around = tokenizer("", **options)["input_ids"]
    ids = list(tokenizer(text, **options)["input_ids"])
    if _count(ids, special) > _count(around, special):
        ids = list(tokenizer(text, **options, split_special_tokens=True)["input_ids"])
    # The unknown token is allowed: it replaces unknown words. But in some tokenizers it is also BOS or EOS.
    special -= {getattr(tokenizer, "unk_token_id", None)} - _ends(tokenizer)
    if _count(ids, special) > _count(around, special):
        inside = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        token = tokenizer.convert_ids_to_tokens(next(number for number in inside if number in special))
        raise BadInput(
            f"{where} makes the special token {token!r} of this tokenizer, which cannot read it as plain text; write "
            "it in another way, or leave it out"
        )
    return ids


def prompt_ids(prompt: str, tokenizer: PreTrainedTokenizerBase, *, where: str = "the prompt") -> list[int]:
    """Return the ids of `prompt`, with what `tokenizer` puts around a text.

    Special tokens of its template are special, all others are text. Raises BadInput, which names `where`, if the
    tokenizer cannot tell the two apart.
    """
    meant = _meant(prompt, tokenizer) if isinstance(prompt, Prompt) and prompt.own else []
    if not meant:
        return plain_ids(prompt, tokenizer, where=where)
    special = _ids(tokenizer)
    whole = list(tokenizer(prompt)["input_ids"])
    if _count(whole, special) == _count(tokenizer("")["input_ids"], special) + len(meant):
        return whole  # the row has no special tokens
    # Most tokenizers split a text at special tokens first, so that the pieces can be read one by one. Some read the
    # text after a special token differently from the beginning of a text; those are refused.
    for start, end, _ in meant:
        probe = f"a {prompt[start:end]} a"
        found = _meant(Prompt.of([(probe, True)]), tokenizer)
        if _joined(probe, found, tokenizer, where) != list(tokenizer(probe, add_special_tokens=False)["input_ids"]):
            raise BadInput(
                f"{where} holds special tokens in its own text and in its template's, and this tokenizer cannot tell "
                "them apart; write those of the text in another way, or leave them out"
            )
    before, after = around(tokenizer)
    return [*before, *_joined(prompt, meant, tokenizer, where), *after]


def around(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the ids that `tokenizer` puts before each text, such as BOS, and those that it puts after it."""
    inside, whole = (list(tokenizer("a", add_special_tokens=each)["input_ids"]) for each in (False, True))
    begin = next(place for place in range(len(whole)) if whole[place : place + len(inside)] == inside)
    return whole[:begin], whole[begin + len(inside) :]


def _joined(
    text: str, meant: Sequence[tuple[int, int, int]], tokenizer: PreTrainedTokenizerBase, where: str
) -> list[int]:
    ids: list[int] = []
    place = 0
    for start, end, number in [*meant, (len(text), len(text), -1)]:
        if piece := text[place:start]:
            ids += plain_ids(piece, tokenizer, add_special_tokens=False, where=where)
        ids += [number] if number >= 0 else []
        place = end
    return ids


def _meant(prompt: Prompt, tokenizer: PreTrainedTokenizerBase) -> list[tuple[int, int, int]]:
    """The special tokens in the template's part of a prompt: start, end and id of each."""
    numbers = tokens(tokenizer)
    search = pattern(numbers)
    return [
        (match.start(), match.end(), numbers[match[0]])
        for start, end in prompt.own
        for match in search.finditer(prompt, start, end)
    ]


def _ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    return {*tokens(tokenizer).values()} | _ends(tokenizer)


def _ends(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    return {tokenizer.bos_token_id, tokenizer.eos_token_id} - {None}


def _count(ids: Sequence[int], special: set[int]) -> int:
    return sum(number in special for number in ids)
