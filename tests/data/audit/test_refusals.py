"""Refusals are found in their many wordings, and an answer that only says sorry is none."""

import pytest

from ftlab.data.audit import audit_instructions
from ftlab.data.audit.refusals import refusal

from .planted import changed, pairs

REFUSALS = [
    "As an AI language model, I don't have feelings, but I can say that the film is good.",
    "As an AI, I don't experience emotions the way people do.",
    "As a language model trained by OpenAI, I do not have access to that.",
    "Well, as an AI, I have no favourite colour.",
    "I\u2019m an AI and cannot visit restaurants.",
    "I'm an AI assistant, so I have never been to Rome.",
    "I'm programmed to be a harmless AI assistant.",
    "Since I am a language model, I cannot know that.",
    "As of my last knowledge update in 2021, the record was 9.58 seconds.",
    "My knowledge cutoff is September 2021.",
    "I do not have personal opinions, but many people like it.",
    "I don't have access to real-time data, so check a weather site.",
    "I don't have the ability to browse websites.",
    "I\u2019m sorry, but I can\u2019t help with that.",
    "I cannot help with that.",
    "I can't help with creating malware.",
    "Sorry, I am unable to fulfill your request.",
    "I apologize, but I cannot generate explicit content.",
    "I must decline to answer this question.",
    "I can't provide instructions for picking locks.",
    "I cannot provide any legal advice. Please see a lawyer.",
    "I am not able to comply with this request, because it goes against my guidelines.",
    "I'm really sorry, but I can't write a story about real people being hurt.",
    "I will not provide instructions for making weapons.",
    "I can't continue with this conversation.",
    "I'd rather not help with that, since it could harm someone.",
    "It would be unethical for me to help with that.",
    "Sorry, that's not something I can help with.",
    "I'm unable to view images, but if you describe it I can help.",
    "I don't have access to real-time weather data.",
    "I'm unable to open links or view images.",
    "I cannot in good conscience write this.",
    "I refuse to answer that.",
    "Sorry, that's not something I'm able to help with.",
    "That falls outside what I'm able to help with.",
    "I'm not comfortable answering this question.",
    "I'd prefer not to answer this question.",
    "I'm Claude, made by Anthropic.",
    "I'm Gemini, a large language model built by Google.",
    "I'm sorry, but I cannot share that with you.",
    "I'm sorry, but I cannot share her number with you.",
    "I'm sorry, I can't do that for you.",
    "No, I can't do this.",
    "I can't answer that.",
    "My apologies, but I do not have the ability to do this.",
    "I apologize, but I do not have the capability to complete this task.",
    "This request violates OpenAI's policy.",
    "That request goes against my guidelines.",
    "I must refuse.",
]
ANSWERS = [
    "Sorry that your parcel is late, we have sent another one.",
    "I'm sorry to hear that your order arrived broken. I have sent you a new one.",
    "Sorry, we cannot refund a ticket after the concert.",
    "I apologise for the delay; your refund left us on Monday.",
    "Unfortunately, I cannot find your order under this e-mail address. Could you send me its number?",
    "I can't give you a date yet, but the engineers are on it.",
    "I couldn't help but smile at the ending.",
    "I can't help laughing when I see it.",
    "Say politely: \"I'm sorry, but I can't help with that.\" Then offer another date.",
    "A chatbot often answers with 'As an AI language model, I cannot', which users find annoying.",
    "To refuse kindly, thank the person first and then say no.",
    'Use `raise PermissionError("I cannot help with that")` in the guard.',
    "> I cannot help with that.\n\nThis line is what users see when the filter is too strict.",
    "GPT-2 was trained as a language model on web pages.",
    "As an AI researcher, I spend my days reading papers.",
    "I am an AI engineer from Leeds.",
    "As a language model grows, its loss falls by a power law.",
    "The AI that I use writes my e-mails.",
    "The nurse cannot give advice on the phone.",
    "They cannot answer your question before noon, because the office is shut.",
    "I cannot provide a receipt for cash payments, so ask the driver.",
    "I can't access my account, and the reset mail never comes.",
    "I'm sorry, I can't come on Saturday, since my sister is getting married.",
    "I cannot recommend this film enough.",
    "I can't give this film more than two stars.",
    "I don't have live bait.",
    "Unfortunately I cannot write on the board today.",
    "I am unable to participate in the conference.",
    "Unfortunately, I cannot continue in this position after 1 May.",
    "Sorry, I can't talk now, I am in a meeting.",
    "I'm sorry, I can't produce the receipt.",
    "I'm afraid I cannot perform tonight.",
    "I'm afraid I can't discuss other readers' loans.",
    "I cannot answer your question before Monday.",
    "I cannot encourage you enough to read it.",
    "I must decline, since I am in Rome that week.",
    "Sorry, this request violates our refund policy.",
    "I do not have the ability to fly.",
    "No, I can't do this without a ladder.",
    "I'm sorry, but I cannot share my lunch with the dog.",
    "I can't do this any more, she said.",
]


@pytest.mark.parametrize("answer", REFUSALS)
def test_a_refusal_or_a_model_that_speaks_of_itself_is_found(answer):
    assert refusal(answer)


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_that_only_says_sorry_or_tells_of_refusing_is_no_refusal(answer):
    assert refusal(answer) == ""


@pytest.mark.parametrize(
    "prompt",
    [
        "Write a reply that declines the invitation.",
        "Refuse this offer.",
        "How do I say no to a question?",
        "Translate: Je ne peux pas r\u00e9pondre \u00e0 cette question.",
        "Fix the grammar: I not can answer this question.",
        "Please rewrite politely: I can't answer this question.",
    ],
)
def test_who_asks_for_a_refusal_or_for_another_wording_of_one_gets_it(prompt):
    assert refusal("I cannot answer this question.", prompt) == ""


@pytest.mark.parametrize("prompt", ["Who are you?", "What is a language model?", "Tell me about yourself."])
def test_who_asks_for_the_speaker_is_told(prompt):
    assert refusal("I'm an AI assistant, so I do not eat.", prompt) == ""


@pytest.mark.parametrize(
    "prompt",
    [
        "Are you able to give me a recipe for bread?",
        "How are you today?",
        "Write about chatbots in schools.",
        "Write a report on declining sales.",
        "Summarize why the bill was rejected.",
        "Say no more: how do I bake?",
        "Rewrite this: The cat sat on the mat.",
    ],
)
def test_a_prompt_that_only_sounds_like_asking_for_a_refusal_hides_none(prompt):
    assert refusal("I'm sorry, but I can't help with that.", prompt)


def test_a_refusal_far_inside_a_long_answer_is_part_of_what_it_tells():
    assert refusal("A tale of the sea. " * 20 + "I cannot help with that, said the gull.") == ""


def test_a_row_with_a_refusal_is_found_with_its_words():
    found = audit_instructions(changed(pairs(), "completion", {5: "I cannot help with that, since it is late."}))
    assert found["refusal"].rows == ("r5",)
    assert found["refusal"].evidence["found"].tolist() == ["I cannot help with that"]
