"""Answers that refuse, or in which a model speaks of itself: what a generator leaves behind. English only.

Words in quotation marks or in code do not count: an answer may explain how somebody refuses.
"""

from __future__ import annotations

import re

BEGINNING = 240  # characters in which a refusal stands; further on, "I cannot" is part of what is told
_MODEL = (
    r"(?:an? )?(?:(?:responsible|helpful|large|text[- ]based|pure(?:ly)?) )*"
    r"(?:(?:AI|artificial intelligence)(?:[ -](?:language|text-based|chat|powered|driven))*"
    r"(?: (?:model|assistant|system|program|chat ?bot))?|language model|chat ?bot|virtual assistant|computer program)"
)
_NOT = (
    r"(?:can(?: ?not|'t) and (?:will not|won't)|can ?not|can't|could not|couldn't|won't be able to|will not|"
    r"(?:am|'m) (?:unable|not (?:able|allowed|permitted|programmed|designed|going)) to|"
    r"won't|(?:(?:must|have to) )?(?:respectfully |politely )?decline to|'d rather not|would rather not)"
)
_THIS = r"(?:this|that|these|those|such|your|the|it|any)"
_MATTER = (
    r"(?:information|instructions?|advice|guidance|assistance|content|details|opinions?|answers?|response|help|support|"
    r"material|lyrics|recommendations?|diagnos[ei]s|malware)"
)
_MEDIA = r"(?:images?|pictures?|photos?|links?|files?|attachments?|videos?|audio|web ?(?:sites?|pages?)|urls?)"
_SELF = (
    rf"\b(?:as|being|since I am|because I am) {_MODEL}(?: (?:trained|developed|created|made|built) by \w+)?,? "
    r"(?:I|my|it is not|it's not)\b",
    rf"\bI(?:'m| am) (?:just |only |merely |simply )?{_MODEL}"
    r"(?=[.,;:!]|$| (?:and|so|that|with|without|trained|created|developed|designed|made)\b)",
    r"\bI(?:'m| am| was) (?:programmed|designed|trained) to (?:be|provide|give) (?:an? )?"
    r"(?:helpful|harmless|honest|safe)\b",
    r"\bI(?:'m| am) (?:ChatGPT|GPT-\d|Qwen|DeepSeek|an? (?:\w+ )?model (?:trained|created|developed) by)\b",
    r"\bmy (?:knowledge|training)(?: data)?(?:'s)? (?:cut-?off|(?:was|were) last updated|only goes)\b",
    r"\bmy training data (?:ends|ended|stops|goes|includes|does not)\b",
    r"\b(?:as of|since) my (?:last|latest) (?:knowledge )?update\b",
    r"\bI (?:do not|don't) have (?:any )?personal (?:opinions|beliefs|feelings|emotions|preferences|"
    r"experiences,? (?:or|and) \w+)\b",
    r"\bI (?:do not|don't) have (?:any )?(?:feelings|emotions|consciousness),? (?:or|and) (?:personal|physical|real)\b",
    r"\bI (?:do not|don't) have (?:direct |any )?(?:access to )?(?:real[- ]time (?:data|information|access)|"
    r"live (?:data|information|access)|the internet|browsing|up-to-date)\b",
    r"\bI (?:do not|don't) have the capabilit(?:y|ies) to \w+",
    r"\bI (?:do not|don't) have the ability to "
    r"(?:browse|access|see|view|open|remember|feel|learn|send|process|generate)\b",
)
_REFUSING = (
    rf"\bI ?{_NOT} (?:help|assist)(?: you)? (?:with|in) (?:{_THIS}\b|\w+ing\b|illegal|harmful)",
    rf"\bI ?{_NOT} (?:help|assist)(?: you)?(?=[.,;!]|$)",
    rf"\bI ?{_NOT} (?:fulfil+|comply with|complete|process|carry out|answer|respond to|engage (?:with|in)|continue"
    rf"(?: with)?|do what) {_THIS}?(?: \w+)? ?"
    r"(?:requests?|questions?|prompts?|quer(?:y|ies)|instructions?|tasks?|topics?|conversations?|you ask)\b",
    rf"\bI ?{_NOT} (?:engage in|participate in|role-?play|promote|condone|encourage|predict the future)\b",
    rf"\bI ?{_NOT} (?:access|provide|give|offer|browse|look up)(?: you)?(?: with)? (?:any |the )?"
    r"(?:real-time|external|up-to-date|live|personal information|personal data)\b",
    rf"\bI ?{_NOT} (?:provide|offer|generate|create|write|produce)(?: you)?(?: with)? (?:[\w-]+ ){{0,3}}{_MATTER}\b",
    r"\bI (?:do not|don't|would not|wouldn't) feel comfortable (?:with )?\w+ing\b",
    r"\b(?:this|that|your) request (?:cannot|can't) be (?:fulfil+ed|completed|processed)",
    rf"\bI ?{_NOT} (?:provide|offer|give|generate|create|write|produce|share|discuss|promote)(?: you)?(?: with)?"
    rf"(?: (?:a|an|specific|explicit|harmful|medical|legal|financial|illegal|hateful|personal|further|or|{_THIS}))* "
    rf"(?:{_MATTER}\b|(?:this|that)(?=[.,;!]|$))",
    rf"\bI ?{_NOT} (?:browse|access|see|view|open|watch|listen to|process) (?:the |your |any |external )?{_MEDIA}\b"
    r"(?=[^.]*\b(?:but|describe|directly|text)\b)",
    rf"\bI (?:(?:must|have to) (?:respectfully )?(?:decline|refuse)"
    rf"(?=[.,;!]| {_THIS} request| to answer)|decline to answer)",
    r"\b(?:goes against|violates?|against) (?:my|our|the|\w+'s) (?:programming|(?:ethical |safety )?guidelines|"
    r"(?:content|safety|use|usage) polic(?:y|ies))",
    rf"\bI ?{_NOT} (?:discuss|talk about|comment on|speculate (?:on|about)) (?:this|that|these|those)\b",
    rf"\bI ?{_NOT} share (?:(?:this|that)(?=[.,;!]|$)|my system prompt|my instructions)",
    rf"\bI ?{_NOT} (?:browse (?:the )?(?:web|internet)|(?:support|promote|condone)(?: or \w+)? "
    r"(?:violence|hate|illegal|harmful|discrimination))\b",
    rf"\bI ?{_NOT} help you (?:cheat|hack|steal|harm)\b",
    rf"\bI ?{_NOT} (?:tell you how to\b|(?:generate|create) (?:images?|pictures)\b|comply(?=[.,;!]|$)|"
    r"respond to (?:this|that)(?=[.,;!]|$))",
    r"\bI(?:'m| am) not programmed to\b",
    r"\b(?:unethical|inappropriate|irresponsible|not (?:be )?(?:appropriate|ethical|right|possible)) for me to "
    r"(?:help|assist|answer|provide|write|create|comment|give|discuss|predict|speculate|access|know|say)\b",
    r"\b(?:not something (?:that )?I can|something (?:that )?I (?:cannot|can't)) (?:help|assist)",
    r"(?:\bsorry(?:,? but|,|\.)|\bapolog[^.!?]{0,40}(?:,? but|,|\.)|\bunfortunately,?|\bafraid(?: that)?) "
    rf"I ?{_NOT} (?:assist|browse|comment|comply|continue|create|discuss|engage|execute|fulfil+|generate|participate|"
    r"perform|predict|produce|recall|speculate|summari[sz]e|talk|translate|verify|view|write|help(?! but)|"
    rf"(?:answer|do) {_THIS}|(?:say|share) (?:this|that)|(?:open|access|process) (?:the |your |any )?{_MEDIA})\b",
)
_SPEAKING, _REFUSALS = ([re.compile(pattern, re.IGNORECASE) for pattern in patterns] for patterns in (_SELF, _REFUSING))
_QUOTED = re.compile(
    r"```.*?(?:```|$)|`[^`\n]*`|\"[^\"]*\"|“[^”]*”|«[^»]*»|^>.*?$|(?<!\w)'[^'\n]*(?:\w'\w[^'\n]*)*'(?!\w)",
    re.DOTALL | re.MULTILINE,
)
_ASKED = re.compile(
    r"\b(?:refus\w+|declin\w+|turn(?:s|ed|ing)? down|say(?:s|ing)? no\b|reject\w*|apolog\w+|are you|who you are|"
    r"what you are|yourself|your (?:name|creator|maker)|language models?|chat ?bots?|role-?play\w*)",
    re.IGNORECASE,
)


def refusal(answer: str, prompt: str = "") -> str:
    """Return the words with which `answer` refuses or speaks of itself as a model, or "".

    Args:
        answer: to the prompt.
        prompt: if it asks for a refusal, or who answers, nothing is found.

    >>> refusal("I'm sorry, but I can't help with that.")
    "I can't help with that"
    >>> refusal("Sorry that your parcel is late. I can't see why, so I have asked the courier.")
    ''
    """
    if _ASKED.search(prompt):
        return ""
    said = _QUOTED.sub(" ... ", answer.replace("\u2019", "'"))
    for patterns, part in ((_SPEAKING, said), (_REFUSALS, said[:BEGINNING])):
        for pattern in patterns:
            if match := pattern.search(part):
                return " ".join(match[0].split())
    return ""
