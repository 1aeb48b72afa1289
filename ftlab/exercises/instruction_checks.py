"""Checks of an instruction task: the rows, what the model learned from them, the new prompts, and the answers."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ftlab.adapters import base_record, lora
from ftlab.data import duplicates, prompts, tasks
from ftlab.data.audit.cut_off import cut_off
from ftlab.data.audit.refusals import refusal
from ftlab.data.words import normalise
from ftlab.errors import AssetError, BadInput
from ftlab.exercises import rewording, saved_models
from ftlab.exercises.checks import CannotCheck, fix, passed, unchecked, warn
from ftlab.exercises.handed_in import HandedIn, NotHandedIn
from ftlab.exercises.outcomes import Answer
from ftlab.models import generation, loading
from ftlab.wording import quoted, some

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FEWEST_ROWS, NEW_PROMPTS, ASKED_AGAIN = 50, 10, 2
SHARED = 3  # rows with one instruction, from where on the input alone tells them apart
SHORT = 8  # words, below which texts are compared by their characters
NEAR_CHARACTERS = 0.7  # Jaccard similarity of character trigrams of two short texts
TIE = {False: 0.02, True: 0.5}  # logits: a token this close to the likeliest one is as good, in fp32 and otherwise
MOST_TOKENS = 4096  # of an answer that is generated again
PROMPT_END = 60  # characters of a prompt by which its row is known: `prompts.encode` cuts a prompt from the left
ROWS, PROMPTS = "rows.jsonl", "prompts.jsonl"


def filled(work: HandedIn) -> Answer:
    """Check that each row has an instruction and an output, and no refusal for one. `work` is what was handed in."""
    rows = work.instructions(ROWS)
    for column in ("instruction", "output"):
        if len(empty := rows[rows[column].str.strip() == ""]):
            return fix(f"an {column} in each row", f"{len(empty)} rows without one: {some(empty['id'])}", ROWS)
    if doubts := _as_a_model_writes(rows):
        return warn("outputs that answer, and that end", doubts, ROWS)
    return passed(f"{len(rows)} rows with instruction and output", ROWS)


def _as_a_model_writes(rows: pd.DataFrame) -> str:
    """Return which outputs refuse or end in the middle, as those of a model may, or ""."""
    refused = [refusal(output, asked) != "" for asked, output in zip(rows["instruction"], rows["output"], strict=True)]
    cut = [why != "" for why in cut_off(rows["output"].tolist())]
    named = ((refused, "refuse or speak of themselves as a model"), (cut, "seem to end in the middle"))
    return "; ".join(f"{sum(them)} {what}: {some(rows['id'][them])}" for them, what in named if any(them))


def enough(work: HandedIn) -> Answer:
    """Check that there are 50 rows, counting copies and near-copies once. `work` is what was handed in."""
    rows = work.instructions(ROWS)
    clusters = _clusters(rows)
    distinct = len(np.unique(clusters))
    if distinct >= FEWEST_ROWS:
        return passed(f"{distinct} different rows of {len(rows)}", ROWS)
    found = f"{distinct} of {len(rows)}"
    again = rows[pd.Series(clusters, index=rows.index).duplicated()]
    if len(again):
        one = again.iloc[0]
        first = rows[clusters == clusters[again.index[0]]].iloc[0]
        found += f"; {one['id']} is a near-copy of {first['id']}"
    return fix(f"at least {FEWEST_ROWS} different rows", found, ROWS)


def own(work: HandedIn) -> Answer:
    """Check that no row is a copy or near-copy of one of the course's. `work` is what was handed in."""
    rows = work.instructions(ROWS)
    course = pd.concat([tasks.read(name) for name in tasks.TASKS], ignore_index=True)
    theirs = {normalise(text) for column in ("instruction", "input") for text in course[column]}
    ours = _questions(rows)
    copied = np.array([normalise(text) in theirs for text in ours])
    known = list(dict.fromkeys([*_questions(course), *course["output"]]))
    copied |= _near(ours, known) | (_near(list(rows["output"]), known) & np.array([_long(t) for t in rows["output"]]))
    if copied.any():
        return fix("rows that you wrote", f"{int(copied.sum())} are the course's own: {some(rows[copied]['id'])}", ROWS)
    return passed(f"none of {len(rows)} rows is the course's", ROWS)


def fits(work: HandedIn) -> Answer:
    """Check that exactly the output of each row is learned, after its own prompt, and that none was cut.

    `work` is what was handed in.
    """
    tokenizer, rows, lines = _tokenizer(work), work.instructions(ROWS), _encoded(work)
    of_output: dict[str, list[int]] = defaultdict(list)
    for row, output in enumerate(rows["output"]):
        of_output[_squeezed(output)].append(row)
    asked = [
        _ends_of_prompt(tokenizer, given if given.strip() else instruction)
        for given, instruction in zip(rows["input"], rows["instruction"], strict=True)
    ]
    taught: list[tuple[int, int]] = []  # a row, and a line that teaches its output after its prompt
    for number, (ids, labels) in enumerate(lines):
        learned = [label for label in labels if label != prompts.IGNORED]
        supervised = [label for label in learned if label != tokenizer.eos_token_id]
        if (stops := len(learned) - len(supervised)) > 1:
            found = f"line {number + 1} learns {stops} of them: padding has labels"
            return fix("one EOS, after the answer", found, "tokens.jsonl")
        text = _squeezed(tokenizer.decode(supervised))
        if text not in of_output:  # the special tokens of a chat template
            text = _squeezed(tokenizer.decode(supervised, skip_special_tokens=True))
        if text not in of_output:
            reading = _squeezed(tokenizer.decode(ids))
            longer = next((output for output in of_output if text and output.startswith(text)), None)
            why = (
                "a cut answer" if longer else "the prompt, too" if len(supervised) > len(ids) * 0.9 else "another text"
            )
            return fix(
                "rows whose labels are the output and EOS, and -100 elsewhere",
                f"a row learns {why}: {quoted(text)} of {quoted(reading)} (line {number + 1})", "tokens.jsonl",
            )  # fmt: skip
        first = next((place for place, label in enumerate(labels) if label != prompts.IGNORED), len(labels))
        readings = [_squeezed(tokenizer.decode(ids[:first], skip_special_tokens=skip)) for skip in (False, True)]
        own = [row for row in of_output[text] if any(end in reading for end in asked[row] for reading in readings)]
        if not own:
            end = readings[0][-PROMPT_END + 3 :]
            return fix("each output after its own prompt",
                       f"line {number + 1} teaches {quoted(text)} after {quoted(end) if end else 'no prompt'}",
                       "tokens.jsonl")  # fmt: skip
        taught += [(row, number) for row in own]
    if lacking := _without_a_line(len(rows), len(lines), taught):
        first_one = _squeezed(rows["output"].iloc[lacking[0]])
        return fix("a training on all rows", f"{len(lacking)} were not learned: {quoted(first_one)}",
                   "tokens.jsonl")  # fmt: skip
    return passed(f"{len(lines)} rows learn their output, whole, and nothing else", "tokens.jsonl")


def _ends_of_prompt(tokenizer: PreTrainedTokenizerBase, text: str) -> set[str]:
    """Return the end of the question of a row, as it is and as `tokenizer` gives it back: it may lack a character."""
    given_back = tokenizer.decode(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
    return {_squeezed(_squeezed(one)[-PROMPT_END:]) for one in (text, given_back)}


def _without_a_line(rows: int, lines: int, taught: list[tuple[int, int]]) -> list[int]:
    """Return the rows that no line of their own teaches; rows with one output and one prompt need a line each."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    row, line = np.array(taught).T
    pairs = csr_array((np.ones(len(taught), dtype=bool), (row, line)), shape=(rows, lines))
    return np.flatnonzero(maximum_bipartite_matching(pairs, perm_type="column") < 0).tolist()


def eos(work: HandedIn) -> Answer:
    """Check that each row ends with EOS, and that EOS has a label. `work` is what was handed in."""
    end = _tokenizer(work).eos_token_id
    if end is None:
        return fix("a tokenizer with an EOS token", "none", "model")
    without = [n for n, (_, labels) in enumerate(_encoded(work)) if not _ends(labels, end, _tokenizer(work))]
    if without:
        found = f"{len(without)} rows end otherwise, row {without[0]}"
        return fix(f"EOS (id {end}) as the last label of each row", found,
                   "tokens.jsonl")  # fmt: skip
    return passed("each row teaches to stop", "tokens.jsonl")


def _ends(labels: list[int], end: int, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether EOS has a label at the end; the line break of a chat template may follow it."""
    if end not in labels:
        return False
    last = len(labels) - 1 - labels[::-1].index(end)
    return not tokenizer.decode([label for label in labels[last + 1 :] if label != prompts.IGNORED]).strip()


def new_prompts(work: HandedIn) -> Answer:
    """Check that there are ten new prompts, far from the training rows. `work` is what was handed in."""
    rows, asked = work.instructions(ROWS), work.instructions(PROMPTS)
    if len(empty := asked[asked["instruction"].str.strip() == ""]):
        return fix("an instruction in each prompt", f"none in {some(empty['id'])}", PROMPTS)
    questions = _questions(pd.concat([rows, asked], ignore_index=True))
    ours, theirs = questions[len(rows) :], questions[: len(rows)]
    distinct = len({normalise(text) for text in ours})
    if distinct < NEW_PROMPTS:
        return fix(f"{NEW_PROMPTS} different prompts", f"{distinct} of {len(asked)}", PROMPTS)
    near = _near(ours, theirs)
    if near.any():
        return fix("prompts that the model has not seen", f"{some(asked[near]['id'])} is a training row, or nearly",
                   PROMPTS)  # fmt: skip
    try:
        pairs = rewording.nearest(ours, theirs)
    except AssetError as problem:
        return unchecked(f"rewordings cannot be looked for: {problem}")
    told = [f"{asked['id'].iloc[one.first]} and {rows['id'].iloc[one.second]}" for one in pairs]
    if same := [text for text, one in zip(told, pairs, strict=True) if one.same]:
        return fix("prompts that the model has not seen", f"{same[0]} say the same in other words", PROMPTS)
    if alike := [text for text, one in zip(told, pairs, strict=True) if one.alike]:
        return warn("prompts far from the training rows", f"close in meaning, read them: {alike[0]}", PROMPTS)
    return passed(f"{len(asked)} prompts, none near a training row", PROMPTS)


def weights(work: HandedIn) -> Answer:
    """Check that the tuned model is whole, fits its base, and differs from it. `work` is what was handed in."""
    import torch

    if _is_adapter(work):
        return _adapter_weights(work)
    try:
        tuned, base = tuned_model(work), base_model(work)
    except AssetError as problem:
        return unchecked(f"the base {work.attempt['model']} cannot be loaded: {problem}")
    except BadInput as problem:
        return fix("a whole model, tuned from the base, as safetensors", str(problem), "model")
    theirs = dict(base.named_parameters())
    moved = 0
    for name, tensor in tuned.named_parameters():
        if not torch.isfinite(tensor).all():
            return fix("finite weights", f"NaN in {name}", "model", advice="Lower the learning rate.")
        moved += name in theirs and _trained(tensor, theirs[name])
    if not moved:
        return fix("weights that training has moved", f"all {len(theirs)} tensors of the base, unchanged", "model",
                   advice="Record the model that was trained.")  # fmt: skip
    return passed(f"{moved} of {len(theirs)} tensors moved", "model")


def _trained(tensor: torch.Tensor, base: torch.Tensor) -> bool:
    """Return whether `tensor` differs from `base`, and from its roundings: to save in half precision is no training."""
    import torch

    roundings = (base, *(base.to(dtype).to(base.dtype) for dtype in (torch.bfloat16, torch.float16)))
    return all(saved_models.differs(tensor, one) for one in roundings)


def _adapter_weights(work: HandedIn) -> Answer:
    """Check that an adapter is whole, and that its B matrices are not zero any more.

    Of an embedding it is the factor A that begins at zero, and its B is drawn.
    """
    from ftlab.adapters import tensors

    try:
        found = tensors.read(work.path("model"))
    except BadInput as problem:
        return fix("a whole adapter, as safetensors", str(problem), "model")
    factors = [size for name, size in found.largest.items() if "lora_B" in name or "lora_embedding_A" in name]
    if not any(factors):
        return fix(
            "an adapter that was trained", f"all {len(factors)} B matrices are zero: it changes nothing", "model"
        )
    return passed(f"an adapter with {len(factors)} trained B matrices", "model")


def adapter(work: HandedIn) -> Answer:
    """Check that an adapter was trained on the base that the try names. `work` is what was handed in."""
    if not _is_adapter(work):
        return passed("a whole model, no adapter", "model")
    try:
        base_record.require_base(work.path("model"), work.attempt["model"])
    except AssetError as problem:
        return unchecked(f"the base {work.attempt['model']} cannot be loaded: {problem}")
    except BadInput as problem:
        return fix(f"an adapter of {work.attempt['model']}", str(problem), "model")
    return passed(f"its base is {work.attempt['model']}, by the hash of the weights", "model")


def answers(work: HandedIn) -> Answer:
    """Check that both models answered all prompts, greedily, with the same settings. `work` is what was handed in."""
    asked = work.instructions(PROMPTS)
    settings = {}
    for name in ("base", "tuned"):
        file = f"answers_{name}.json"
        found = given_answers(work, name)
        if len(found["answers"]) != len(asked):
            return fix(f"{len(asked)} answers of the {name} model", str(len(found["answers"])), file)
        for number, (prompt, (_, line)) in enumerate(zip(found["prompts"], asked.iterrows(), strict=True)):
            for part in ("instruction", "input"):
                if _squeezed(line[part]) not in _squeezed(prompt):
                    return fix(f"the {part} of {line['id']} in prompt {number}", quoted(prompt), file)
        if found.get("do_sample") is not False:
            return fix("greedy decoding (do_sample=False)", f"do_sample={quoted(found.get('do_sample'))}", file)
        settings[name] = (found["max_new_tokens"], tuple(found["prompts"]))
    if settings["base"] != settings["tuned"]:
        return fix("the same prompts and max_new_tokens for both models", "they differ", "answers_tuned.json")
    if given_answers(work, "base")["answers"] == given_answers(work, "tuned")["answers"]:
        return warn(
            "a tuned model that answers otherwise", "base and tuned gave the same answers", "answers_tuned.json"
        )
    return passed(f"{len(asked)} prompts, up to {settings['base'][0]} tokens, greedily", "answers_tuned.json")


def again(work: HandedIn) -> Answer:
    """Generate two answers of each model again, greedily, and compare. `work` is what was handed in."""
    try:
        models = {"base": base_model(work), "tuned": tuned_model(work)}
    except (AssetError, BadInput) as problem:
        return unchecked(f"a model cannot be loaded: {problem}")
    rough = saved_models.roughly(work.json("arguments.json"))
    for name, model in models.items():
        found = given_answers(work, name)
        if not found["prompts"]:
            return unchecked("there are no answers")
        places = np.linspace(0, len(found["prompts"]) - 1, ASKED_AGAIN).round().astype(int)
        for place in dict.fromkeys(places.tolist()):
            said, prompt = str(found["answers"][place]), str(found["prompts"][place])
            other = _otherwise(model, _tokenizer(work), prompt, said, int(found["max_new_tokens"]), TIE[rough])
            if other is not None:
                rules = generation.own_rules(model)
                advice = f"The model has rules of its own ({', '.join(rules)}); generate without them." if rules else ""
                return fix(
                    f"the answer that the {name} model gives to prompt {place}, {quoted(other)}", quoted(said),
                    f"answers_{name}.json", advice=advice,
                )  # fmt: skip
    return passed(f"{ASKED_AGAIN} answers of each model came out the same again", "answers_tuned.json")


def _otherwise(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, said: str, most: int, tie: float
) -> str | None:
    """Return the greedy answer of `model` if it is not `said`; None if it is, or if they part at a tie."""
    import torch

    ways = (
        tokenizer(prompt)["input_ids"], tokenizer(prompt, add_special_tokens=False)["input_ids"],
        prompts.prompt_ids(prompt, tokenizer),
    )  # fmt: skip
    answer = ""
    known = len(model.get_input_embeddings().weight)
    for ids in dict.fromkeys(map(tuple, ways)):
        _require_known(ids, known, tokenizer)
        (found,) = generation.generate(model, tokenizer, [list(ids)], max_new_tokens=most)
        answer = found.text
        if _squeezed(answer) == _squeezed(said):
            return None
        end = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
        here, there = ([*tokenizer(text, add_special_tokens=False)["input_ids"], *end] for text in (answer, said))
        shared = next((n for n, pair in enumerate(zip(here, there, strict=False)) if pair[0] != pair[1]), None)
        if shared is None or there[shared] >= known:  # a token that the model cannot have written
            continue
        _require_known(here[:shared], known, tokenizer)
        with torch.no_grad():
            read = torch.tensor([[*ids, *here[:shared]]], device=model.device)
            logits = model(input_ids=read).logits[0, -1].float()
        if float(logits.max() - logits[there[shared]]) < tie:
            return None
    return answer


def _require_known(ids: Sequence[int], known: int, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise CannotCheck if one of `ids` is beyond the `known` rows of an embedding, as tokens are that were added."""
    if beyond := [one for one in ids if one >= known]:
        raise CannotCheck(
            f"the model has {known:,} tokens, and the tokenizer that was handed in has {beyond[0]} for "
            f"{quoted(tokenizer.decode(beyond[:1]))} in a prompt or an answer; leave tokens that you added out of them"
        )


def given_answers(work: HandedIn, model: str) -> dict[str, Any]:
    """Return the answers of "base" or "tuned" that were handed in, with their prompts and settings.

    Args:
        work: what was handed in.
        model: base or tuned.

    Raises:
        BadInput: the file is not as the recorder writes it.
    """
    name = f"answers_{model}.json"
    found = work.json(name)
    for key in ("prompts", "answers"):
        if work.texts(name, key) is None:
            raise BadInput(f"{work.folder / name} has no list of texts called {key}; record the answers again")
    if work.number(name, "max_new_tokens", least=1) > MOST_TOKENS:
        raise BadInput(
            f"{work.folder / name} has {quoted(found['max_new_tokens'])} max_new_tokens; expected at most "
            f"{MOST_TOKENS:,}; record shorter answers"
        )
    if len(found["prompts"]) != len(found["answers"]):
        raise BadInput(f"{work.folder / name} has other numbers of prompts and answers; record the answers again")
    return found


def tuned_model(work: HandedIn) -> PreTrainedModel:
    """Return the tuned model of `work` in float32: the saved one, or the base with the saved adapter."""
    import torch

    if "tuned" not in work.loaded:
        if _is_adapter(work):
            base = loading.causal_lm(work.attempt["model"], dtype=torch.float32)
            work.loaded["tuned"] = lora.load(base, work.path("model"), work.attempt["model"])
        else:
            path = saved_models.folder(work)
            saved_models.require_same_architecture(path, work.attempt["model"])
            work.loaded["tuned"] = loading.causal_lm(str(path), dtype=torch.float32).eval()
    return work.loaded["tuned"]


def base_model(work: HandedIn) -> PreTrainedModel:
    """Return the base model of `work`, in float32."""
    import torch

    if "base" not in work.loaded:
        work.loaded["base"] = loading.causal_lm(work.attempt["model"], dtype=torch.float32).eval()
    return work.loaded["base"]


def _is_adapter(work: HandedIn) -> bool:
    return (work.path("model") / "adapter_config.json").is_file()


def _tokenizer(work: HandedIn) -> PreTrainedTokenizerBase:
    """Return the tokenizer that was handed in; that of the base while no model is."""
    if "tokenizer" not in work.loaded:
        base = work.attempt["model"]
        try:
            folder = work.path("model")
        except NotHandedIn:
            return loading.tokenizer(base)
        work.loaded["tokenizer"] = lora.tokenizer(folder, base) if _is_adapter(work) else loading.tokenizer(str(folder))
    return work.loaded["tokenizer"]


def _encoded(work: HandedIn) -> list[tuple[list[int], list[int]]]:
    """Return the ids and labels of each training row, without padding at the end."""
    found, size = [], len(_tokenizer(work))
    for number, line in enumerate(work.lines("tokens.jsonl"), start=1):
        ids, labels = line.get("input_ids"), line.get("labels")
        if not isinstance(ids, list) or not isinstance(labels, list) or len(ids) != len(labels):
            raise BadInput(f"{work.path('tokens.jsonl')}, line {number}: expected input_ids and labels of one length")
        learned = (label for label in labels if label != prompts.IGNORED)
        if odd := [one for one in chain(ids, learned) if type(one) is not int or not 0 <= one < size]:
            raise BadInput(
                f"{work.path('tokens.jsonl')}, line {number}: the token id {quoted(odd[0])}; expected 0 to {size - 1}, "
                f"as the tokenizer has them, and labels of {prompts.IGNORED} where nothing is learned"
            )
        last = max((place for place, label in enumerate(labels) if label != prompts.IGNORED), default=-1) + 1
        found.append((ids[:last], labels[:last]) if last else (ids, labels))
    if not found:
        raise BadInput(f"{work.path('tokens.jsonl')} has no rows; record the training again")
    return found


def _questions(rows: pd.DataFrame) -> list[str]:
    """Return what tells each row apart: its input, if several rows have its instruction; else instruction and input."""
    several = rows["instruction"].map(normalise).map(rows["instruction"].map(normalise).value_counts()) >= SHARED
    alone = several & (rows["input"].str.strip() != "")
    return [
        str(line.input) if shared else f"{line.instruction}\n{line.input}".strip()
        for line, shared in zip(rows.itertuples(), alone, strict=True)
    ]


def _clusters(rows: pd.DataFrame) -> np.ndarray:
    """Return a cluster number for each row: equal if both question and output are copies or near-copies."""
    questions, outputs = _questions(rows), list(rows["output"])
    first, second = np.triu_indices(len(rows), 1)
    if len(rows) > 2000:  # all pairs would be millions; long texts are found by their signatures
        return duplicates.together([f"{one}\n{other}" for one, other in zip(questions, outputs, strict=True)])
    marks = [_marks(text) for text in questions], [_marks(text) for text in outputs]
    same = [
        _similar(marks[0][one], marks[0][other]) and _similar(marks[1][one], marks[1][other])
        for one, other in zip(first, second, strict=True)
    ]
    return duplicates.clusters(len(rows), first[same], second[same])


def _near(texts: list[str], others: list[str]) -> np.ndarray:
    """Return for each of `texts` whether one of `others` is a copy or a near-copy of it."""
    there = [_marks(text) for text in others]
    return np.array([any(_similar(_marks(text), one) for one in there) for text in texts], dtype=bool)


def _long(text: str) -> bool:
    return len(text.split()) >= SHORT


@dataclass(frozen=True)
class _Marks:
    """What two texts are compared by: word bigrams, and character trigrams where one of them is short."""

    long: bool
    words: frozenset[Any]
    characters: frozenset[str]


@lru_cache(maxsize=20_000)
def _marks(text: str) -> _Marks:
    words = normalise(text).split()
    padded = f"  {' '.join(words)} "
    trigrams = frozenset(padded[place : place + 3] for place in range(max(1, len(padded) - 2)))
    return _Marks(len(words) >= SHORT, frozenset(pairwise(words)), trigrams)


def _similar(first: _Marks, second: _Marks) -> bool:
    by_words = first.long and second.long
    one, other = (first.words, second.words) if by_words else (first.characters, second.characters)
    shared = len(one & other)
    return shared >= (duplicates.NEAR if by_words else NEAR_CHARACTERS) * (len(one) + len(other) - shared)


def _squeezed(text: str) -> str:
    """Return a text with single spaces and composed accents, as some tokenizers give it back."""
    return " ".join(unicodedata.normalize("NFC", str(text)).split())
