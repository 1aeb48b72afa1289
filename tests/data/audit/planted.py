"""Rows made so that the audit finds one thing in them: an example for each finding of the catalogue."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from ftlab.data import sources
from ftlab.data.audit import AuditReport, audit, audit_instructions
from ftlab.models import loading

GOOD = ["superb", "moving", "witty", "radiant", "gripping", "tender", "dazzling", "brilliant"]
BAD = ["dreadful", "wooden", "tedious", "hollow", "clumsy", "grating", "stale", "lifeless"]
PLAIN = [
    "film", "story", "actors", "camera", "music", "scene", "ending", "dialogue", "plot", "pace", "director", "costume",
    "script", "picture", "sequel", "hero", "villain", "chase", "romance", "opening", "screen", "cast", "role", "minute",
    "hour", "stage", "light", "sound", "voice", "cut",
]  # fmt: skip
EXAMPLES: dict[str, Callable[[], "Planted"]] = {}


@dataclass(frozen=True)
class Planted:
    """Training rows, the ids that the finding should list, and what else the audit is given."""

    frame: pd.DataFrame
    rows: tuple[str, ...] = ()
    given: dict[str, Any] = field(default_factory=dict)

    def audit(self, frame: pd.DataFrame | None = None) -> AuditReport:
        """The audit of these rows, or of others in their place."""
        frame = self.frame if frame is None else frame
        return (audit_instructions if "prompt" in frame else audit)(frame, **self.given)


def table(texts, labels, prefix="r") -> pd.DataFrame:
    return pd.DataFrame(
        {"id": [f"{prefix}{number}" for number in range(len(texts))], "text": texts, "label": labels}, dtype=object
    )


def reviews(rows: int = 18) -> pd.DataFrame:
    """The first of the shipped reviews, which have nothing wrong with them but their number; ids r0, r1 and so on.

    Eighteen are nine of each class, too few for the simple model to be asked: an audit of them is quick.
    """
    frame = sources.read("mini_reviews").head(rows)
    return table(frame["text"].tolist(), frame["label"].tolist())


def opinions(rows: int = 200, seed: int = 0) -> pd.DataFrame:
    """Rows whose words tell the label: four words of its own among eight that say nothing."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(["good", "bad"] * (rows // 2)).tolist()
    texts = []
    for label in labels:
        words = [*rng.choice(GOOD if label == "good" else BAD, 4), *rng.choice(PLAIN, 8)]
        texts.append(" ".join(rng.permutation(words)))
    return table(texts, labels)


def pairs(rows: int = 20) -> pd.DataFrame:
    """Instruction data with nothing wrong with it; ids r0, r1 and so on."""
    texts = reviews(2 * rows)["text"].tolist()
    return pd.DataFrame(
        {"id": [f"r{number}" for number in range(rows)], "prompt": texts[:rows], "completion": texts[-rows:]},
        dtype=object,
    )


def changed(frame: pd.DataFrame, column: str, values: dict[int, object]) -> pd.DataFrame:
    """The rows with some values of a column replaced, by number of the row."""
    frame = frame.copy()
    for row, value in values.items():
        frame.loc[row, column] = value
    return frame


def copied(frame: pd.DataFrame, row: int, of: int, rewrite: Callable[[str], str] = str, label=None) -> pd.DataFrame:
    """The rows with one of them a copy of another, rewritten."""
    frame = changed(frame, "text", {row: rewrite(frame["text"][of])})
    return changed(frame, "label", {row: frame["label"][of] if label is None else label})


def edited(text: str) -> str:
    """A near-duplicate of a text that has some words: one of them is another."""
    words = text.split()
    return " ".join([*words[:2], "somewhat", *words[3:]])


@cache
def tokenizer(name: str) -> Any:
    return loading.tokenizer(name)


@cache
def example(finding_id: str) -> Planted:
    return EXAMPLES[finding_id]()


@cache
def report(finding_id: str) -> AuditReport:
    """The audit of the example of a finding."""
    return example(finding_id).audit()


def plants(function: Callable[[], Planted]) -> Callable[[], Planted]:
    EXAMPLES[function.__name__] = function
    return function


@plants
def missing_text() -> Planted:
    return Planted(changed(reviews(), "text", {5: None, 6: "  "}), ("r5", "r6"))


@plants
def missing_label() -> Planted:
    return Planted(changed(reviews(), "label", {5: None, 6: " "}), ("r5", "r6"))


@plants
def label_slip() -> Planted:
    return Planted(changed(reviews(), "label", {5: "Positive", 6: "negative "}), ("r5", "r6"))


@plants
def one_class() -> Planted:
    return Planted(reviews().assign(label="good"))


@plants
def tiny_class() -> Planted:
    return Planted(changed(reviews(), "label", {5: "mixed", 6: "mixed"}), ("r5", "r6"))


@plants
def similar_labels() -> Planted:
    labels = {row: ("Masse", "Ma\u00dfe")[row % 2] for row in range(18)}
    return Planted(changed(reviews(), "label", labels), tuple(f"r{row}" for row in range(1, 18, 2)))


@plants
def placeholder_labels() -> Planted:
    return Planted(changed(reviews(), "label", {5: "N/A", 6: "N/A", 7: "N/A"}), ("r5", "r6", "r7"))


@plants
def imbalance() -> Planted:
    frame = reviews(200)
    rare = frame.index[frame["label"] == "positive"][15:]
    return Planted(frame.drop(rare).reset_index(drop=True))


@plants
def few_rows() -> Planted:
    return Planted(reviews())


@plants
def sorted_by_label() -> Planted:
    return Planted(reviews(200).sort_values("label", kind="stable").reset_index(drop=True))


@plants
def exact_duplicates() -> Planted:
    return Planted(copied(reviews(), 15, of=4), ("r15",))


@plants
def normalised_duplicates() -> Planted:
    return Planted(copied(reviews(), 15, of=4, rewrite=str.upper), ("r15",))


@plants
def near_duplicates() -> Planted:
    return Planted(copied(reviews(), 15, of=4, rewrite=edited), ("r15",))


@plants
def disguised_duplicates() -> Planted:
    return Planted(copied(reviews(), 15, of=4, rewrite=lambda text: text.replace("e", "\u0435")), ("r15",))


@plants
def templates() -> Planted:
    said = "Dear customer, your order {} has left our house and will be with you in {} days."
    return Planted(changed(reviews(), "text", {5: said.format(1204, 3), 6: said.format(88, 12)}), ("r5", "r6"))


@plants
def contained_texts() -> Planted:
    frame = reviews(80)
    whole = " ".join(frame["text"][30:33])
    return Planted(changed(frame.head(18), "text", {5: whole, 6: whole[: len(whole) * 6 // 10]}), ("r6",))


@plants
def growing_dialogues() -> Planted:
    frame = pairs()
    frame.loc[6, "prompt"] = f"{frame['prompt'][5]}\n{frame['completion'][5]}\n{frame['prompt'][6]}"
    return Planted(frame, ("r6",))


@plants
def conflicting_labels() -> Planted:
    return Planted(copied(reviews(), 15, of=4, label="negative"), ("r4", "r15"))


@plants
def conflicting_near_labels() -> Planted:
    return Planted(copied(reviews(), 15, of=4, rewrite=edited, label="negative"), ("r15", "r4"))


@plants
def leakage() -> Planted:
    test = table(["something else altogether", reviews()["text"][4].upper()], ["positive", "positive"], "t")
    return Planted(reviews(), ("t1",), {"test": test})


@plants
def near_leakage() -> Planted:
    test = table(["something else altogether", edited(reviews()["text"][4])], ["positive", "positive"], "t")
    return Planted(reviews(), ("t1",), {"test": test})


@plants
def truncation() -> Planted:
    frame = changed(reviews(40), "text", {7: " ".join(reviews(80)["text"][40:])})
    return Planted(frame, ("r7",), {"tokenizer": tokenizer("tiny-distilbert"), "max_length": 256})


@plants
def likely_label_errors() -> Planted:
    frame = opinions(400)
    flipped = {row: "bad" if frame["label"][row] == "good" else "good" for row in range(10, 18)}
    return Planted(changed(frame, "label", flipped), tuple(f"r{row}" for row in flipped))


@plants
def length_shortcut() -> Planted:
    frame = reviews(200)
    length = frame["text"].str.len()
    return Planted(frame.assign(label=np.where(length > length.median(), "long", "short")))


@plants
def token_shortcut() -> Planted:
    frame = reviews(200)
    marked = frame["label"] == "positive"
    frame.loc[marked, "text"] += " (starfive)"
    return Planted(frame, tuple(frame["id"][marked]))


@plants
def shape_shortcut() -> Planted:
    frame = reviews(200)
    marked = frame["label"] == "positive"
    frame.loc[marked, "text"] += " "
    return Planted(frame, tuple(frame["id"]))


def by_authors(rows: int = 240, authors: int = 24) -> pd.DataFrame:
    """Rows whose label only their author tells: a word of the author's own, and one label for each author."""
    rng = np.random.default_rng(0)
    of = rng.permutation(np.arange(rows) % authors)
    texts = [" ".join([f"quirk{author}", *rng.choice(PLAIN, 12)]) for author in of]
    frame = table(texts, ["good" if author % 2 else "bad" for author in of])
    return frame.assign(group=[f"author {author}" for author in of])


@plants
def group_column() -> Planted:
    return Planted(by_authors())


@plants
def group_leakage() -> Planted:
    frame = by_authors()
    alone = frame["group"].isin(["author 0", "author 1"])
    test = pd.concat([frame[alone], frame[~alone].tail(6)])
    train = frame[~frame["id"].isin(test["id"])].reset_index(drop=True)
    return Planted(train, tuple(test["id"].tail(6)), {"test": test.reset_index(drop=True)})


def _with_debris(text: str) -> Planted:
    return Planted(changed(reviews(), "text", {5: f"A film about a lighthouse {text} and its keeper."}), ("r5",))


@plants
def markup() -> Planted:
    return _with_debris("<br /><i>far</i> from here")


@plants
def entities() -> Planted:
    return _with_debris("&amp; a storm&#x27;s end")


@plants
def mojibake() -> Planted:
    return _with_debris("near the cafÃ©")


@plants
def control_characters() -> Planted:
    return _with_debris("by the\u200b sea")


@plants
def email_addresses() -> Planted:
    return _with_debris("(ask jo.doe+films@mail.lighthouse.co.uk)")


@plants
def phone_numbers() -> Planted:
    return _with_debris("(call +44 20 7946 0958)")


@plants
def card_numbers() -> Planted:
    return _with_debris("paid with 4111 1111 1111 1111")


@plants
def bank_accounts() -> Planted:
    return _with_debris("pays into DE89 3704 0044 0532 0130 00")


@plants
def national_ids() -> Planted:
    return _with_debris("(passport number C01X00T47)")


@plants
def ip_addresses() -> Planted:
    return _with_debris("(seen from 91.198.174.192)")


@plants
def secrets() -> Planted:
    return _with_debris("(password: tr0ub4dor&3)")


@plants
def documentation_addresses() -> Planted:
    return _with_debris("(ask jo@example.com)")


@plants
def boilerplate() -> Planted:
    frame = reviews()
    line = "\nRead more reviews on our pages."
    return Planted(
        changed(frame, "text", {row: frame["text"][row] + line for row in range(3, 9)}),
        tuple(f"r{row}" for row in range(3, 9)),
    )


@plants
def missing_prompt() -> Planted:
    return Planted(changed(pairs(), "prompt", {5: None, 6: " "}), ("r5", "r6"))


@plants
def empty_completion() -> Planted:
    return Planted(changed(pairs(), "completion", {5: None, 6: " "}), ("r5", "r6"))


@plants
def copied_completion() -> Planted:
    frame = pairs()
    return Planted(changed(frame, "completion", {5: frame["prompt"][5].upper()}), ("r5",))


@plants
def duplicate_prompts() -> Planted:
    frame = pairs()
    return Planted(changed(frame, "prompt", {6: frame["prompt"][5].upper()}), ("r6",))


@plants
def contradicting_answers() -> Planted:
    frame = changed(pairs(), "prompt", {6: pairs()["prompt"][5]})
    return Planted(changed(frame, "completion", {5: "Yes.", 6: "no"}), ("r6",))


@plants
def refusal() -> Planted:
    said = {5: "As an AI language model, I have not seen the film.", 6: "I'm sorry, but I can't help with that."}
    return Planted(changed(pairs(), "completion", said), ("r5", "r6"))


@plants
def cut_off_answer() -> Planted:
    said = {5: "It is a film about a fisherman (who lives with", 6: "Two hours of rain, a goat and the"}
    return Planted(changed(pairs(), "completion", said), ("r5", "r6"))


@plants
def repetition_loop() -> Planted:
    return Planted(changed(pairs(), "completion", {5: "He goes back to the sea. " * 6}), ("r5",))


@plants
def chat_markers() -> Planted:
    frame = changed(pairs(), "prompt", {5: "What is the weather like?"})
    return Planted(changed(frame, "completion", {5: "It rains all day.\n\nHuman: And what about Sunday?"}), ("r5",))


@plants
def empty_like_answer() -> Planted:
    return Planted(changed(pairs(), "completion", {5: "...", 6: "[Insert answer here]"}), ("r5", "r6"))


@plants
def broken_format() -> Planted:
    answers = [f'{{"said": "{text[:20]}"}}' for text in pairs()["completion"]]
    return Planted(changed(pairs().assign(completion=answers), "completion", {5: answers[5].replace(":", "")}), ("r5",))


@plants
def contradicting_near_prompts() -> Planted:
    frame = changed(pairs(), "prompt", {6: f"Please, {pairs()['prompt'][5]}"})
    return Planted(changed(frame, "completion", {5: "Yes.", 6: "no"}), ("r6",))


@plants
def mismatched_answers() -> Planted:
    """Each answer has every second word of its prompt; two have changed places."""
    texts = sources.read("mini_reviews")["text"].head(40).tolist()
    answers = [" ".join(text.split()[::2]) + "." for text in texts]
    answers[5], answers[9] = answers[9], answers[5]
    ids = [f"r{number}" for number in range(len(texts))]
    prompts = [f"Shorten this text: {text}" for text in texts]
    frame = pd.DataFrame({"id": ids, "prompt": prompts, "completion": answers}, dtype=object)
    return Planted(frame, ("r5", "r9"))


@plants
def prompt_leakage() -> Planted:
    texts = reviews(100)["text"].tolist()
    prompt = " ".join(texts[50:55])
    frame = changed(changed(pairs(), "prompt", {5: prompt}), "completion", {5: " ".join(texts[60:70])})
    test = pd.DataFrame({"id": ["t0"], "prompt": [edited(prompt)], "completion": [" ".join(texts[70:80])]})
    return Planted(frame, ("t0",), {"test": test})


@plants
def answer_leakage() -> Planted:
    texts = reviews(100)["text"].tolist()
    answer = " ".join(texts[50:52])
    frame = changed(changed(pairs(), "prompt", {5: " ".join(texts[60:70])}), "completion", {5: answer})
    test = pd.DataFrame({"id": ["t0"], "prompt": [" ".join(texts[70:80])], "completion": [answer]})
    return Planted(frame, ("t0",), {"test": test})


@plants
def broken_conversation() -> Planted:
    frame = conversations()
    broken = {"prompt": None, "completion": None, "messages": None, "problem": "it has no turns"}
    for column, value in broken.items():
        frame = changed(frame, column, {5: value, 6: value})
    return Planted(frame, ("r5", "r6"))


def conversations(rows: int = 20) -> pd.DataFrame:
    """The same pairs as conversations of one question, as `sources.read_conversations` returns them."""
    frame = pairs(rows)
    said = [
        [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
        for prompt, completion in zip(frame["prompt"], frame["completion"], strict=True)
    ]
    return frame.assign(messages=pd.Series(said, dtype=object), problem="")


def _at(max_length: int) -> dict[str, Any]:
    return {"tokenizer": tokenizer("tiny-gpt2"), "max_length": max_length}


@plants
def completion_cut() -> Planted:
    return Planted(changed(pairs(), "completion", {5: " ".join(pairs()["completion"])}), ("r5",), _at(500))


@plants
def all_masked() -> Planted:
    return Planted(changed(pairs(), "prompt", {5: " ".join(pairs()["prompt"])}), ("r5",), _at(500))


@plants
def eos_lost() -> Planted:
    """The longest row fits but for its end."""
    lengths = audit_instructions(pairs(), tokenizer=tokenizer("tiny-gpt2")).lengths
    longest = lengths.loc[lengths["tokens"].idxmax()]
    return Planted(pairs(), (longest["id"],), _at(int(longest["tokens"]) - 1))


@plants
def no_eos() -> Planted:
    return Planted(pairs(), (), {"tokenizer": tokenizer("tiny-distilbert")})


@plants
def pad_is_eos() -> Planted:
    from transformers import AutoTokenizer

    return Planted(pairs(), (), {"tokenizer": AutoTokenizer.from_pretrained(loading.folder("tiny-gpt2"))})


@plants
def special_tokens() -> Planted:
    return _with_debris("<|endoftext|> and [SEP]")


@plants
def unknown_tokens() -> Planted:
    given = {"tokenizer": tokenizer("tiny-distilbert")}
    return Planted(changed(reviews(), "text", {5: "😀😀 😡", 6: "天気 がいい ☀"}), ("r5", "r6"), given)


@plants
def placeholder_texts() -> Planted:
    frame = changed(pairs(), "prompt", dict.fromkeys((3, 4), "N/A"))
    frame = changed(frame, "completion", dict.fromkeys((7, 8), "None"))
    return Planted(changed(frame, "prompt", {5: "nan"}), ("r3", "r4", "r5", "r7", "r8"))


@plants
def template_headings() -> Planted:
    frame = pairs()
    two = f"{frame['completion'][5]}\n\n### Instruction:\n{frame['prompt'][6]}\n\n### Response:\nyes"
    return Planted(changed(frame, "completion", {5: two}), ("r5",))


def parted(frame: pd.DataFrame) -> pd.DataFrame:
    """The same pairs with the parts of their prompts beside them: the instruction, and half of the time an input."""
    inputs = ["" if row % 2 else f"a note of number {row}" for row in range(len(frame))]
    prompts = [f"{prompt}\n{text}".strip() for prompt, text in zip(frame["prompt"], inputs, strict=True)]
    return frame.assign(instruction=frame["prompt"], input=inputs, prompt=prompts)


@plants
def prompt_cut() -> Planted:
    return Planted(parted(changed(pairs(), "prompt", {5: " ".join(pairs()["prompt"])})), ("r5",), _at(500))


@plants
def refused() -> Planted:
    long = " ".join(pairs()["completion"])
    return Planted(parted(changed(pairs(), "completion", {5: long, 6: " "})), ("r5", "r6"), _at(500))
