"""Special tokens in the text of a row: they stay text, and end or begin nothing.

A tokenizer that meets its own "</s>" in a text gives the id that ends a sequence, so an answer that merely mentions it
would end there, and a customer who types "[SEP]" would draw a line between two segments. What a row holds is plain
text; special tokens come from the tokenizer, and from the words of a template around the row.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from ftlab.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Those of widely used tokenizers and chat templates: BERT's, T5's, Llama's, GPT's, ChatML's, Gemma's, Phi's, Mistral's.
WELL_KNOWN = (
    "[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]", "<s>", "</s>", "<pad>", "<unk>", "<mask>", "<bos>", "<eos>",
    "<|endoftext|>", "<|startoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|end_of_text|>",
    "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<start_of_turn>", "<end_of_turn>",
    "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>",
)  # fmt: skip


class Prompt(str):
    """A text before an answer that knows which of its characters a template wrote, and not a row.

    `own` holds their places as (start, end). A special token there is meant as one; anywhere else it is text.
    """

    own: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, parts: Iterable[tuple[str, bool]]) -> Prompt:
        """The text of all parts, each with whether the template wrote it."""
        said, own, end = [], [], 0
        for text, of_template in parts:
            said.append(text)
            if of_template:
                own.append((end, end + len(text)))
            end += len(text)
        prompt = cls("".join(said))
        prompt.own = tuple(own)
        return prompt


# Listing the special tokens takes longer than reading a text, and a tokenizer seldom gets new ones.
_listed: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[Hashable, dict[str, int]]] = WeakKeyDictionary()


def tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """The special tokens of a tokenizer as they would stand in a text, and their ids."""
    if not hasattr(type(tokenizer), "added_tokens_decoder"):
        return {}
    state = len(tokenizer), str(tokenizer.special_tokens_map)
    if tokenizer not in _listed or _listed[tokenizer][0] != state:
        added = tokenizer.added_tokens_decoder.items()
        _listed[tokenizer] = state, {token.content: number for number, token in added if token.special}
    return _listed[tokenizer][1]


def unknown_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id that a text gets for what the tokenizer has no token for; None where it has one for every text."""
    unknown = tokenizer.unk_token_id
    rare = "\U0001faa9 \u1342 \U00012031"  # a disco ball, an Ethiopic and a cuneiform sign
    return unknown if unknown in tokenizer(rare, add_special_tokens=False)["input_ids"] else None


def pattern(names: Iterable[str]) -> re.Pattern[str]:
    """What finds any of these special tokens in a text, the longest first."""
    return re.compile("|".join(map(re.escape, sorted({*names}, key=len, reverse=True))) or r"(?!)")


def plain_ids(
    text: str, tokenizer: PreTrainedTokenizerBase, *, add_special_tokens: bool = True, where: str = "the text"
) -> list[int]:
    """The ids of a text in which special tokens are text, with what the tokenizer puts around any text.

    For a text without special tokens these are the ids that the tokenizer gives by itself. Raises BadInput, naming
    `where`, for a tokenizer that makes a special token of it all the same: a Unigram model holds "</s>" as a piece.
    """
    special = _ids(tokenizer)
    options = {} if add_special_tokens else {"add_special_tokens": False}
    around = tokenizer("", **options)["input_ids"]
    ids = list(tokenizer(text, **options)["input_ids"])
    if _count(ids, special) > _count(around, special):
        ids = list(tokenizer(text, **options, split_special_tokens=True)["input_ids"])
    # The unknown token stands for any word that is not known, unless it is an end as well.
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
    """The ids of a prompt, with what the tokenizer puts around a text: special where its template says so, else text.

    Raises BadInput, naming `where`, for a tokenizer that cannot tell the two apart.
    """
    meant = _meant(prompt, tokenizer) if isinstance(prompt, Prompt) and prompt.own else []
    if not meant:
        return plain_ids(prompt, tokenizer, where=where)
    special = _ids(tokenizer)
    whole = list(tokenizer(prompt)["input_ids"])
    if _count(whole, special) == _count(tokenizer("")["input_ids"], special) + len(meant):
        return whole  # the row brings none of its own
    # A special token parts a text before anything else is done with it, so the pieces can be read one by one; unless
    # the tokenizer treats what follows one otherwise than the beginning of a text.
    for start, end, _ in meant:
        probe = f"a {prompt[start:end]} a"
        found = _meant(Prompt.of([(probe, True)]), tokenizer)
        if _joined(probe, found, tokenizer, where) != list(tokenizer(probe, add_special_tokens=False)["input_ids"]):
            raise BadInput(
                f"{where} holds special tokens in its own text and in its template's, and this tokenizer cannot tell "
                "them apart; write those of the text in another way, or leave them out"
            )
    inside, around = (list(tokenizer("a", add_special_tokens=each)["input_ids"]) for each in (False, True))
    begin = next(place for place in range(len(around)) if around[place : place + len(inside)] == inside)
    return [
        *around[:begin], *_joined(prompt, meant, tokenizer, where), *around[begin + len(inside) :],
    ]  # fmt: skip


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
    """Where the template's own words hold special tokens: start, end and id of each."""
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
