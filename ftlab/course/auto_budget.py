"""Adapt a budget to the rows and the model, where nobody set a value by hand: lengths, sizes, layers, the format.

A profile's lengths were chosen for its own task and model. The answers of another file may be ten times as long; a
`max_length` that the file's owner never set would reject them.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ftlab.course import profiles
from ftlab.data import chat, conversations, few_shot, prompts, sources, tasks
from ftlab.data.chat import Chat
from ftlab.errors import BadInput
from ftlab.models import loading

WHOLE = 256  # tokens up to which a row is kept whole; of a longer one the prompt is cut, and the lesson counts it
LONGEST = 512  # tokens up to which max_length follows the answers; a training on longer rows has to be asked for
ROOM = 32  # tokens of a prompt that stand before the longest answer
MOST_NEW = 256  # tokens up to which max_new_tokens follows the answers
STEP = 8  # lengths are multiples of it
ASKED_BY_ROWS = {"task", "dataset", "model", "template", "examples", "max_length", "max_new_tokens"}
NAMED = 3  # how many rows a refusal names


def fitted(budget: profiles.Budget, *, rows: bool = True) -> profiles.Budget:
    """Return the budget with lengths and sizes that fit its model and its rows; its field `fitted` names what changed.

    max_length shrinks to the model's positions, and grows where another task, model or template than the profile's own
    makes rows longer. max_new_tokens grows with the answers. template becomes chat where rows have several questions or
    a system turn. examples shrinks to those that the model has positions for. frozen_layers shrinks to two thirds of a
    model with fewer layers. The sizes of the splits grow if a file of your own, or a data set of the hub, has more
    classes than they hold. For a task of the course, `left_out` names the rows that are still too long, up to half of
    them. The model is fetched if it is not in the cache, and so is a data set of the hub.

    Args:
        budget: as `profiles.resolve` returns it.
        rows: whether to read the rows; without them only the model is considered.

    Raises:
        BadInput: as `profiles.require_fitting`; rows of your own file, or most rows of a task of the course, are too
            long; rows are conversations that the template cannot have (the message names them); the model has no chat
            template; or examples do not fit.
    """
    budget = _within_depth(_within_positions(budget))
    profiles.require_fitting(budget)
    if not rows:
        return budget
    return _holding_its_rows(budget) if "task" in budget.settings else _holding_its_classes(budget)


def may_change(budget: profiles.Budget) -> bool:
    """Return whether `fitted` has to read the rows of `budget`; with the profile's own task and model it has not."""
    return bool(ASKED_BY_ROWS & budget.overrides.keys())


def _within_positions(budget: profiles.Budget) -> profiles.Budget:
    if "max_length" not in budget.settings or "max_length" in budget.overrides:
        return budget
    most = loading.max_positions(budget.model)
    return _with(budget, max_length=min(budget.max_length, most))


def _within_depth(budget: profiles.Budget) -> profiles.Budget:
    if "frozen_layers" not in budget.settings or "frozen_layers" in budget.overrides:
        return budget
    depth = loading.depth(budget.model)
    return budget if budget.frozen_layers <= depth else _with(budget, frozen_layers=max(1, 2 * depth // 3))


def _holding_its_classes(budget: profiles.Budget) -> profiles.Budget:
    """Return the budget with splits large enough to hold each class of your own file or of a data set of the hub."""
    if budget.dataset in sources.SOURCES:
        return budget
    columns: dict[str, Any] = budget.columns()
    labels = sources.read(budget.dataset, most=budget.source_rows, **columns)["label"]
    least = {"rows": 2 * labels.nunique(), "validation_rows": labels.nunique(), "test_rows": labels.nunique()}
    asked = {
        name: max(budget.settings[name], size)
        for name, size in least.items()
        if budget.settings.get(name) and name not in budget.overrides  # 0 stands for all, which is enough
    }
    return _with(budget, **asked)


@dataclass(frozen=True)
class _Lengths:
    """The tokens of each row in a format: of its prompt, of its answer with its end, and the least max_length for it.

    These are the tokens that training reads.
    """

    template: prompts.Format
    before: np.ndarray
    after: np.ndarray
    least: np.ndarray

    @classmethod
    def of(cls, table: pd.DataFrame, tokenizer: Any, template: prompts.Format) -> _Lengths:
        """Measure the rows of `table`. Raises BadInput for one that the format cannot have."""
        rows = [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
        pieces = [prompts.pieces(row, tokenizer, template=template) for row in rows]
        before, after = (np.array([len(part) for part in parts]) for parts in zip(*pieces, strict=True))
        least = after + 1 if isinstance(template, prompts.Template) else before + after
        if tasks.MESSAGES in table:  # the oldest questions of a conversation may be left out
            least = np.array([prompts.least_length(row, tokenizer, template=template) for row in rows])
        return cls(template, before, after, least)

    @property
    def longest(self) -> int:
        """The tokens of the longest row, of a conversation up to its last answer."""
        return int((self.before + self.after).max())

    @property
    def needed(self) -> int:
        """The max_length that cuts no answer. A prompt may be cut, but for a question in a chat format."""
        return int(self.least.max()) + (0 if isinstance(self.template, Chat) else ROOM - 1)


def _holding_its_rows(budget: profiles.Budget) -> profiles.Budget:
    """Return the budget with a format, lengths and a number of examples that suit the rows of its task."""
    table = tasks.part(budget.task, budget.settings.get("source_rows", 0))
    tokenizer = loading.tokenizer(budget.model)
    tokenizer.model_max_length = sys.maxsize  # or it warns of a long row, which is here to be counted
    tokenizer.name_or_path = budget.model  # the name in messages
    budget = _in_a_format_of_its_rows(budget, table, has_chat=bool(tokenizer.chat_template))
    if budget.settings.get("template") == "chat" and tokenizer.chat_template and tasks.MESSAGES in table:
        _require_turns_of_its_rows(budget, table, tokenizer)
    template = prompts.named(budget.settings.get("template", "alpaca"), tokenizer)
    lengths = _Lengths.of(table, tokenizer, template)
    most = loading.max_positions(budget.model)
    if "max_length" not in budget.overrides and {"task", "model", "template"} & {*budget.overrides, *budget.fitted}:
        asked = max(min(lengths.longest, WHOLE), lengths.needed)
        limit = most if budget.profile == "smoke" else min(most, LONGEST)
        budget = _with(budget, max_length=max(budget.max_length, min(_rounded(asked), limit)))
    if _follows_the_answers(budget):
        asked = _rounded(int(lengths.after.max()))
        budget = _with(budget, max_new_tokens=min(asked, MOST_NEW, max(1, most // 2)))
    cut, deaf = lengths.least > budget.max_length, lengths.before + budget.max_new_tokens > most
    if budget.task in tasks.TASKS and 2 * int((cut | deaf).sum()) <= len(table):
        budget = replace(budget, left_out=tuple(table["id"][cut | deaf]))
    else:
        _require_room(budget, lengths, table["id"].to_numpy(), cut, deaf)
    return _with_examples_that_fit(budget, table, tokenizer, lengths)


def _require_room(
    budget: profiles.Budget, lengths: _Lengths, ids: np.ndarray, cut: np.ndarray, deaf: np.ndarray
) -> None:
    """Raise BadInput if max_length would `cut` answers, or if the model has no positions for some (`deaf`)."""
    most = loading.max_positions(budget.model)
    leave = "take another task" if budget.task in tasks.TASKS else "leave them out"
    if cut.any():
        advice = f"set max_length to {lengths.needed}, or {leave}" if lengths.needed <= most else (
            f"{budget.model} has positions for {most}, so shorten them, or {leave}"
        )  # fmt: skip
        longest = f"{lengths.after.max()} tokens with EOS"
        if isinstance(lengths.template, Chat):
            longest = f"{lengths.least.max()} tokens with its question, in the chat format"
        raise BadInput(
            f"max_length {budget.max_length} would cut the answers of {_counted(ids, cut)} of {budget.task} "
            f"({_named(ids, cut)}), of which the longest has {longest}; {advice}: a cut answer teaches not to stop"
        )
    if deaf.any():
        raise BadInput(
            f"the {most} positions of {budget.model} have no room for an answer of max_new_tokens "
            f"{budget.max_new_tokens} after the prompts of {_counted(ids, deaf)} of {budget.task} "
            f"({_named(ids, deaf)}); shorten them, or {leave}"
        )


def _in_a_format_of_its_rows(budget: profiles.Budget, table: pd.DataFrame, *, has_chat: bool) -> profiles.Budget:
    """Return the budget with the chat format, if a row has several questions or a system turn and nobody set another.

    `has_chat` tells whether the tokenizer has a chat template. Raises BadInput if such rows cannot have that format.
    """
    if "template" not in budget.settings or budget.template == "chat" or tasks.MESSAGES not in table:
        return budget
    needs = np.array([len(conversations.question({tasks.MESSAGES: said})) > 1 for said in table[tasks.MESSAGES]])
    if not needs.any():
        return budget
    if has_chat and "template" not in budget.overrides:
        return _with(budget, template="chat")
    ids = table["id"].to_numpy()
    rows = f"{_counted(ids, needs)} of {budget.task} ({_named(ids, needs)}) have several questions or a system turn"
    if has_chat:
        raise BadInput(f"{rows}, and template=alpaca takes one question alone; set template to chat, or leave it out")
    raise BadInput(
        f"{rows}, which need a chat format, and the tokenizer of {budget.model} has no chat template; take a model "
        "that was trained to chat (smollm2), or rows of one question and one answer"
    )


def _require_turns_of_its_rows(budget: profiles.Budget, table: pd.DataFrame, tokenizer: Any) -> None:
    """Raise BadInput, which counts the rows, if the chat template of the model cannot have some of their turns."""
    asked = [conversations.question({tasks.MESSAGES: said}) for said in table[tasks.MESSAGES]]
    system = np.array([turns[0]["role"] == "system" for turns in asked])
    several = np.array([sum(turn["role"] == "user" for turn in turns) > 1 for turns in asked])
    if not (system | several).any():
        return
    ids, other = table["id"].to_numpy(), f"{chat.KNOWN}, or rows of one question and one answer"
    template = chat.for_rows(tokenizer, otherwise=other)
    for rows, what, fit, problem, change in (
        (system, "a system turn", template.takes_system, chat.NO_SYSTEM, "take these turns out"),
        (several, "several questions", template.takes_several, chat.NO_SEVERAL, "keep the last one of each"),
    ):
        if rows.any() and not fit:
            reason = problem.replace("the model's chat template", f"the chat template of {budget.model}")
            raise BadInput(
                f"{_counted(ids, rows)} of {budget.task} ({_named(ids, rows)}) have {what}, and {reason}; {change}, or "
                f"{chat.KNOWN}"
            )


def _with_examples_that_fit(
    budget: profiles.Budget, table: pd.DataFrame, tokenizer: Any, lengths: _Lengths
) -> profiles.Budget:
    """Return the budget with as many examples in the few-shot prompt as there are, and as the model has positions for.

    Raises BadInput for a number set by hand that does not fit.
    """
    most, wanted = loading.max_positions(budget.model), budget.settings.get("examples", 0)
    many = min(budget.rows or len(table), len(table)) >= 10 * wanted
    if not wanted or (many and (wanted + 1) * (lengths.longest + ROOM) + budget.max_new_tokens <= most):
        return budget
    splits = tasks.load(
        budget.task, rows=budget.rows or None, validation_rows=budget.validation_rows, test_rows=budget.test_rows,
        seed=budget.seed, at_most=budget.sizes_are_bounds, most=budget.source_rows, without=budget.left_out,
    )  # fmt: skip
    never_asked = {*splits.train["id"], *budget.left_out}
    asked: list[Any] = [row for row in table.to_dict("records") if row["id"] not in never_asked]
    by_hand = "examples" in budget.overrides
    for k in range(wanted if by_hand else min(wanted, len(splits.train)), 0, -1):
        try:
            few_shot.all_question_ids(
                asked, few_shot.draw(splits.train, k, budget.seed), tokenizer, positions=most,
                max_new_tokens=budget.max_new_tokens, template=lengths.template,
            )  # fmt: skip
        except BadInput:
            if by_hand:
                raise
        else:
            return _with(budget, examples=k)
    return _with(budget, examples=0)


def _follows_the_answers(budget: profiles.Budget) -> bool:
    """Return whether max_new_tokens was chosen for another task. In smoke it stays small."""
    if budget.profile == "smoke" or "max_new_tokens" in budget.overrides or "task" not in budget.overrides:
        return False
    own = profiles.table()[budget.lesson][budget.profile]["task"]
    return budget.task != own and "max_new_tokens" not in profiles.for_dataset(
        budget.lesson, budget.profile, budget.task
    )


def _with(budget: profiles.Budget, **lengths: Any) -> profiles.Budget:
    changed = {name: value for name, value in lengths.items() if budget.settings[name] != value}
    names = (*budget.fitted, *(name for name in changed if name not in budget.fitted))
    return replace(budget, settings={**budget.settings, **changed}, fitted=names)


def _rounded(tokens: int) -> int:
    return -(-tokens // STEP) * STEP


def _counted(ids: Collection[str], which: np.ndarray) -> str:
    return f"{int(which.sum()):,} of the {len(ids):,} rows"


def _named(ids: np.ndarray, which: np.ndarray) -> str:
    found = ids[which]
    return ", ".join(found[:NAMED]) + (" and more" if len(found) > NAMED else "")
