"""The format that a model was trained in, as the chat template that is saved with it.

A tuned model answers well in one format. If its folder names another one, or none, then `pipeline`, `transformers chat`
and `ftlab generate --chat` ask in a format that training never saw. So the folder gets the trained one. The Alpaca
headings come with no tokenizer; here they are a chat template, in Jinja.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ftlab.data import chat, conversations, prompts, special_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ftlab.data.prompts import Format

# Between the generation markers are an answer and its EOS: what a training on this template supervises. MARK is a
# comment. BEGIN is what the tokenizer puts before a text; `apply_chat_template` does not add it. The hyphens remove the
# line breaks.
_HEADINGS = """\
MARK
{%- for message in messages -%}
  {%- if message['content'] is not string -%}
    {{- raise_exception('turn ' ~ loop.index ~ ' is no text; give each turn a text') -}}
  {%- elif message['role'] == 'system' -%}
    {{- raise_exception('the Alpaca headings, in which the model was trained, have no system turn') -}}
  {%- elif message['role'] != ('user' if loop.index is odd else 'assistant') -%}
    {{- raise_exception('turn ' ~ loop.index ~ ' is of ' ~ message['role'] ~ '; user and assistant alternate') -}}
  {%- elif message['role'] == 'user' -%}
    {{- (BEGIN if loop.first else '\\n\\n') ~ '### Instruction:\\n' ~ message['content'] -}}
  {%- else -%}
    {{- '\\n\\n### Response:\\n' -}}
    {%- generation -%}
    {{- message['content'] ~ eos_token -}}
    {%- endgeneration -%}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '\\n\\n### Response:\\n' -}}
{%- endif -%}
"""
_PROBES = (
    {"instruction": "Name it."}, {"instruction": "  Two spaces, and a line\n\n"}, {"instruction": "1"},
    {"instruction": "Name it.", "input": " A lamp.\n"},
)  # fmt: skip


def with_template(tokenizer: PreTrainedTokenizerBase, template: Format) -> PreTrainedTokenizerBase:
    """Return a copy of `tokenizer` whose chat template is the trained one, to save with the model.

    Its `apply_chat_template` gives a question the ids that `prompts.question_ids` gives it, BOS included. An input
    stands in the question after `chat.ALPACA_INPUT`. One thing may differ: a special token in a question stays text,
    but transformers cuts the text before it, so that in some tokenizers a space there is a token of its own.

    Args:
        tokenizer: of the model.
        template: that the model was trained in, `prompts.ALPACA` or a `chat.Chat`.

    Returns:
        The copy. It has no chat template, rather than a wrong one, if Jinja cannot give those ids: for headings of your
        own, and for a tokenizer that reads the text after BOS differently from the beginning of a text.
    """
    found = copy.deepcopy(tokenizer)
    if isinstance(template, chat.Chat):
        found.chat_template = template.template
        return found
    text = _HEADINGS.replace("MARK", chat.ALPACA_MARK).replace("BEGIN", _beginning(found))
    found.chat_template = text if all(_gives_the_same(text, found, template, probe) for probe in _PROBES) else None
    return found


def trained_format(folder: Path, tokenizer: PreTrainedTokenizerBase) -> Format:
    """Return the format in which the adapter in `folder` was trained: that of its chat template, if it has one.

    Without one it is the Alpaca headings, the format of the course. `tokenizer` is the adapter's. Raises BadInput as
    `chat.of_folder` and `chat.Chat`.
    """
    text = chat.of_folder(folder)
    return prompts.ALPACA if not text or is_alpaca(text) else chat.Chat(tokenizer, templates=text)


def is_alpaca(templates: chat.Templates | None) -> bool:
    """Return whether `templates` are the Alpaca headings, as `with_template` writes them."""
    return isinstance(templates, str) and templates.startswith(chat.ALPACA_MARK)


def _beginning(tokenizer: PreTrainedTokenizerBase) -> str:
    """What the tokenizer puts before a text, as an expression of Jinja."""
    before = special_tokens.around(tokenizer)[0]
    if before == [tokenizer.bos_token_id]:
        return "bos_token"
    return repr("".join(tokenizer.convert_ids_to_tokens(before)))


def _gives_the_same(
    text: str, tokenizer: PreTrainedTokenizerBase, template: prompts.Template, row: Mapping[str, str]
) -> bool:
    """Whether the chat template `text` gives the question of `row` the ids of `template`."""
    ids = tokenizer.apply_chat_template(
        conversations.question(row, before_input=chat.ALPACA_INPUT),
        chat_template=text,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=False,
    )
    return list(ids) == prompts.question_ids(row, tokenizer, template=template)
