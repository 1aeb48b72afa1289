"""The facts of an export: does the file's head say the same as the folder: tokens, special ids, template, sizes?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from ftlab.data import chat
from ftlab.errors import BadInput
from ftlab.models import model_files
from ftlab.serving.gguf_files import LONG_FACTORS, SHORT_FACTORS, Content
from ftlab.wording import quoted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Conversations in which two templates that differ are likely to show it.
_ASKED = {"role": "user", "content": "Name a colour."}
PROBES: tuple[tuple[dict[str, str], ...], ...] = (
    (_ASKED,),
    ({"role": "user", "content": "  Two lines,\n\n{{ braces }} and \"quotes\" \n"},),
    ({"role": "system", "content": "Be brief."}, _ASKED),
    (_ASKED, {"role": "assistant", "content": "Red."}, {"role": "user", "content": "Another one?"}),
)  # fmt: skip
# The numbers of the head that a config has under one of these names.
NUMBERS = {
    "block_count": ("num_hidden_layers",), "embedding_length": ("hidden_size",),
    "attention.head_count": ("num_attention_heads",), "attention.head_count_kv": ("num_key_value_heads",),
    "context_length": ("max_position_embeddings",),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps", "layer_norm_epsilon", "norm_eps", "norm_epsilon"),
    "attention.layer_norm_epsilon": (
        "layer_norm_eps", "layer_norm_epsilon", "norm_eps", "norm_epsilon", "layernorm_epsilon"
    ),
}  # fmt: skip
# How positions are scaled, by the same name in both, and its numbers: {file's name: config's name}.
SCALINGS = {
    "linear": {"factor": "factor"},
    "yarn": {"factor": "factor", "original_context_length": "original_max_position_embeddings"},
}
# The tensors by which other scalings come: without them llama.cpp scales nothing. Converters of 2024 wrote none.
NEEDED = {"llama3": ("rope_freqs.weight",), "longrope": (LONG_FACTORS, SHORT_FACTORS)}
NO_WINDOW = ("phi3",)  # architectures whose window is in the file, and is not applied by llama.cpp
THETA = 10_000.0  # the base of rotary positions that llama.cpp takes if the file names none


def faults(content: Content, tokenizer: PreTrainedTokenizerBase, config: Any) -> Iterator[str]:
    """Yield a sentence for each fact of the head that differs from the folder.

    Args:
        content: the open file.
        tokenizer: of the folder, as it is saved.
        config: of the folder.
    """
    yield from _tokens(content, tokenizer, config)
    yield from _special_ids(content, tokenizer)
    yield from _template(content, tokenizer)
    yield from _numbers(content, config)
    yield from _positions(content, config)
    yield from _sampling(content, config)


def _tokens(content: Content, tokenizer: PreTrainedTokenizerBase, config: Any) -> Iterator[str]:
    stored, own = content.values["tokenizer.ggml.tokens"], len(tokenizer)
    rows = getattr(config.get_text_config(), "vocab_size", own)
    if len(stored) != rows:
        yield f"the file has {len(stored):,} tokens, and the model has rows for {rows:,}"
    for number, token in enumerate(tokenizer.convert_ids_to_tokens(range(min(own, len(stored))))):
        if token is None or token == stored[number]:  # some vocabularies have gaps
            continue
        # Of a token that was added, the converter writes the text that it stands for.
        if number in tokenizer.added_tokens_decoder and tokenizer.decode([number]) == stored[number]:
            continue
        yield f"token {number:,} is {quoted(stored[number])} in the file, and {quoted(token)} in the folder"
        break
    yield from _merges(content, tokenizer)


def _merges(content: Content, tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """Compare the merges of a BPE tokenizer: a missing one changes how some rare word is read, and no test shows it."""
    stored = content.values.get("tokenizer.ggml.merges")
    if not stored or not tokenizer.is_fast:
        return
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    merges = [one if isinstance(one, str) else " ".join(part.replace(" ", "Ġ") for part in one)
              for one in model.get("merges") or ()]  # fmt: skip
    if len(stored) != len(merges):
        yield f"the file has {len(stored):,} merges of tokens, and the folder's tokenizer {len(merges):,}"
    elif stored != merges:
        number = next(place for place, (one, other) in enumerate(zip(stored, merges, strict=True)) if one != other)
        yield f"merge {number:,} is {quoted(stored[number])} in the file, and {quoted(merges[number])} in the folder"


def _special_ids(content: Content, tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    facts = content.facts
    for name, stored, own in (
        ("EOS", facts.eos, tokenizer.eos_token_id), ("BOS", facts.bos, tokenizer.bos_token_id),
        ("pad", facts.pad, tokenizer.pad_token_id),
    ):  # fmt: skip
        # An id that the tokenizer lacks comes from the config, and is not used: EOS ends answers, so it must be equal.
        if stored != own and not (own is None and name != "EOS"):
            has = "names no" if stored is None else f"has {_said(stored, tokenizer)} as"
            wants = "none" if own is None else _said(own, tokenizer)
            yield f"the file {has} {name} token, and the folder {wants}"
    adds = adds_bos(tokenizer)
    # Where the file does not say, llama.cpp decides by the kind of the tokenizer: the ids of texts show how.
    if "tokenizer.ggml.add_bos_token" in content.values and facts.adds_bos != adds:
        begins = ("puts BOS before a text", "puts no BOS before a text")
        yield f"the file {begins[not facts.adds_bos]}, and the folder's tokenizer {begins[not adds]}"
    if content.values.get("tokenizer.ggml.add_eos_token") and tokenizer("a")["input_ids"][-1] != tokenizer.eos_token_id:
        yield "the file puts EOS after a text, and the folder's tokenizer does not"


def adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether `tokenizer` puts its BOS token before a text."""
    ids = tokenizer("a")["input_ids"]
    return tokenizer.bos_token_id is not None and len(ids) > 1 and ids[0] == tokenizer.bos_token_id


def _said(number: int, tokenizer: PreTrainedTokenizerBase) -> str:
    token = tokenizer.convert_ids_to_tokens(number) if 0 <= number < len(tokenizer) else None
    return f"{number} ({quoted(token)})" if token else str(number)


def _template(content: Content, tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    stored, own = content.facts.chat_template, template(tokenizer)
    if stored == own:
        return
    if own is None:
        yield "the file has a chat template, and the folder has none"
    elif stored is None:
        yield "the file has no chat template, so llama.cpp would take ChatML for the folder's own one"
    else:
        for probe in PROBES:
            written, expected = (rendered(tokenizer, text, probe) for text in (stored, own))
            if written != expected:
                yield (
                    f"the file's chat template is another one: it writes {_shown(written, expected)}, and the folder's "
                    f"{_shown(expected, written)}"
                )
                return


def template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return the chat template of `tokenizer` that is used: its only one, or the default of several, or None."""
    own = tokenizer.chat_template
    return own.get(chat.DEFAULT) if isinstance(own, Mapping) else own or None


def rendered(tokenizer: PreTrainedTokenizerBase, template: str, said: Sequence[Mapping[str, str]]) -> str | None:
    """Return the text that `template` makes of the turns `said` for the assistant to answer, or None if it refuses."""
    try:
        format = chat.Chat(tokenizer, templates=template)
        return format.text([dict(turn) for turn in said], asked=True)
    except BadInput:
        return None


def _shown(text: str | None, other: str | None) -> str:
    """Return the part of `text` where it differs from `other`."""
    if text is None:
        return "nothing (it refuses the conversation)"
    same = 0
    while other is not None and same < min(len(text), len(other)) and text[same] == other[same]:
        same += 1
    return quoted(text[max(0, same - 8) :])


def _numbers(content: Content, config: Any) -> Iterator[str]:
    """Compare the sizes, the norms' epsilon and the base of the positions: they change logits a little or a lot."""
    config, prefix = config.get_text_config(), content.facts.architecture
    for key, names in NUMBERS.items():
        stored = content.values.get(f"{prefix}.{key}")
        own = [one for name in names if _is_number(one := getattr(config, name, None))]
        if _is_number(stored) and own and not any(_same(stored, one) for one in own):
            yield f"the file has the {prefix}.{key} {stored:.6g}, and the folder's config {own[0]:.6g}"
    if bases := _thetas(getattr(config, "rope_parameters", None)):
        stored = content.values.get(f"{prefix}.rope.freq_base", THETA)
        if not any(_same(stored, one) for one in bases):
            yield f"the file has the {prefix}.rope.freq_base {stored:.6g}, and the folder's config {bases[0]:.6g}"


def _positions(content: Content, config: Any) -> Iterator[str]:
    """Compare the scaling of rotary positions, and the window of the attention: they show in long texts alone."""
    config, prefix = config.get_text_config(), content.facts.architecture
    scaling: Mapping[str, Any] = getattr(config, "rope_parameters", None) or {}
    kind, stored_kind = scaling.get("rope_type", ""), content.values.get(f"{prefix}.rope.scaling.type", "none")
    if kind in SCALINGS and stored_kind != kind:
        yield f"the file scales its positions by {quoted(stored_kind)}, and the folder's config by {quoted(kind)}"
    if kind == "default" and stored_kind != "none":
        yield f"the file scales its positions by {quoted(stored_kind)}, and the folder's config does not"
    for key, name in SCALINGS.get(kind, {}).items():
        stored, own = content.values.get(f"{prefix}.rope.scaling.{key}"), scaling.get(name)
        if _is_number(own) and not (_is_number(stored) and _same(stored, own)):
            yield f"the file has the {prefix}.rope.scaling.{key} {stored}, and the folder's config {own:.6g}"
    held = {tensor.name for tensor in content.reader.tensors}
    for name in NEEDED.get(kind, ()):
        if name not in held:
            yield f"the file lacks {name}, by which the model scales its positions ({kind})"
    own_window, stored = window(config), content.values.get(f"{prefix}.attention.sliding_window")
    if prefix in NO_WINDOW:
        stored = None
    if own_window and stored != own_window:
        yield (
            f"the attention of the model has a window of {own_window:,} tokens, and that of the file "
            f"{f'{stored:,}' if stored else 'none'}, so longer texts are read otherwise; if shorter ones are enough, "
            f"set max_position_embeddings to {own_window} in the folder's config.json and export it again"
        )


def window(config: Any) -> int | None:
    """Return how far back the attention of some layers reaches, in tokens, if that is less than all positions."""
    config = config.get_text_config()
    size, layers = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
    if not size or (layers and "sliding_attention" not in layers):
        return None
    return size if size < (getattr(config, "max_position_embeddings", None) or size + 1) else None


def _sampling(content: Content, config: Any) -> Iterator[str]:
    """Compare whether the file asks for a temperature, which llama.cpp takes, where the folder is greedy."""
    stored = content.values.get("general.sampling.temp")
    path = Path(config.name_or_path) / "generation_config.json"
    if stored and not (path.is_file() and model_files.read_json(path).get("do_sample")):
        yield f"the file asks for a temperature of {stored:.3g}, and the folder's model answers greedily"


def _thetas(parameters: Any) -> list[float]:
    """Return the bases of the rotary positions in a config: one, or one for each kind of layer."""
    if not isinstance(parameters, Mapping):
        return []
    inner = [one for value in parameters.values() if isinstance(value, Mapping) for one in _thetas(value)]
    return [float(parameters["rope_theta"])] if _is_number(parameters.get("rope_theta")) else inner


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _same(one: float, other: float) -> bool:
    return abs(one - other) <= 1e-6 * max(abs(one), abs(other))  # the file has them in float32
