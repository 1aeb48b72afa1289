"""Answers that refuse, or in which a model speaks of itself: what a generator leaves behind. English only.

Words in quotation marks or in code do not count: an answer may explain how somebody refuses. A person often names a
time or a place ("I cannot answer your question before Monday"), and a model that refuses does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

BEGINNING = 240  # characters in which a refusal stands; further on, "I cannot" is part of what is told
_END = r"(?=\s*(?:[.,;:!?)\u2013\u2014]|$))"
_MODEL = (
    r"(?:an? )?(?:(?:responsible|helpful|large|text[- ]based|pure(?:ly)?) )*"
    r"(?:(?:AI|artificial intelligence)(?:[ -](?:language|text-based|chat|powered|driven))*"
    r"(?: (?:model|assistant|system|program|chat ?bot))?|language model|chat ?bot|virtual assistant|computer program)"
)
_MADE = r"(?:made|built|created|developed|designed|trained)"
_VENDOR = (
    r"by (?:(?:researchers|engineers|the team|a team|people) (?:at|of|from) )?(?:OpenAI|Anthropic|Google|DeepMind|"
    r"Meta\b|Microsoft|Mistral|Alibaba|DeepSeek|Cohere|xAI|Amazon|Apple|NVIDIA|Baidu|Tencent|Zhipu|Moonshot|MiniMax|ByteDance|"
    r"IBM|Databricks|Stability AI|Hugging ?Face|LAION|LMSYS|Allen)"
)
_NOT = (
    r"(?:can(?: ?not|'t) and (?:will not|won't)|can ?not|can't|won't be able to|will not|won't|"
    r"(?:am|'m) (?:unable|not (?:able|allowed|permitted|programmed|designed|going|willing)) to|"
    r"(?:(?:must|have to|will have to|'ll have to) )?(?:respectfully |politely )?(?:decline|refuse) to|"
    r"(?:must|have to|will) refrain from|(?:'d|would) (?:rather|prefer) not(?: to)?)"
    r"(?:,? (?:in good (?:conscience|faith)|ethically|currently|directly|actually|simply|just),?)?"
)
_THIS = r"(?:this|that|these|those|such)"
_BAD = (
    r"(?:illegal|harmful|hateful|hate speech|unethical|dangerous|violent|violence|discriminat\w+|explicit|offensive|"
    r"sexual|copyrighted|defamatory|misleading|inappropriate|malware|malicious)"
)
_REQUEST = r"(?:requests?|questions?|prompts?|quer(?:y|ies)|instructions?|tasks?|topics?|conversations?|discussions?)"
# What is refused: "this.", "that request", "your question", "the request", "illegal acts".
_ASKED_FOR = (
    rf"(?:{_THIS}{_END}|(?:{_THIS}|your|any) (?:[\w-]+ ){{0,2}}?{_REQUEST}\b|"
    rf"the (?:request|prompt|query)\b|(?:{_THIS} |any )?(?:form of )?{_BAD}\b)"
)
_MATTER = (
    r"(?:information|instructions?|advice|guidance|guides?|tutorials?|assistance|content|details|opinions?|material|"
    r"lyrics|recommendations?|diagnos[ei]s)"
)
_WRITING = (
    r"(?:stor(?:y|ies)|poems?|essays?|articles?|jokes?|songs?|scripts?|speech(?:es)?|texts?|code|programs?|images?|"
    r"pictures?|summar(?:y|ies)|reviews?|dialogues?|scenes?|reports?|content)"
)
_MEDIA = r"(?:images|pictures|photos|links|files|attachments|videos|audio|web ?sites|web ?pages|urls)"
_LACKS = r"I (?:do not|don't|lack)(?: (?:currently|actually))?"
_SELF = (
    rf"\b(?:as|being|since I am|because I am) {_MODEL}(?: {_MADE} by \w+)?,? (?:I|my|it is not|it's not)\b",
    rf"\bI(?:'m| am) (?:just |only |merely |simply )?{_MODEL}"
    rf"(?=[.,;:!]|$| (?:and|so|that|with|without|{_MADE})\b)",
    r"\bI(?:'m| am| was) (?:programmed|designed|trained) to (?:be|provide|give) (?:an? )?"
    r"(?:helpful|harmless|honest|safe)\b",
    r"\bI(?:'m| am) (?:ChatGPT|GPT-\d|Qwen|DeepSeek)\b",
    rf"\b(?:I(?:'m| am)|my name is) (?:an? (?:[\w-]+ ){{0,3}}|\w+(?: \w+)?, (?:and I was |an? (?:[\w-]+ ){{0,4}})?)"
    rf"{_MADE} {_VENDOR}",
    rf"\bI was {_MADE} {_VENDOR}",
    rf"\bI(?:'m| am) an? (?:\w+ )?model {_MADE} by\b",
    r"\bmy (?:knowledge|training)(?: data)?(?:'s)? (?:cut-?off|(?:was|were) last updated|only goes)\b",
    r"\bmy training data (?:ends|ended|stops|goes|includes|does not)\b",
    r"\b(?:as of|since) my (?:last|latest) (?:knowledge )?update\b",
    rf"\b{_LACKS} (?:have )?(?:any )?personal (?:opinions|beliefs|feelings|emotions|preferences|"
    r"experiences,? (?:or|and) \w+)\b",
    rf"\b{_LACKS} (?:have )?(?:any )?(?:feelings|emotions|consciousness),? (?:or|and) (?:personal|physical|real)\b",
    rf"\b{_LACKS} (?:experience|possess) (?:human )?(?:emotions|feelings|consciousness)\b",
    rf"\b{_LACKS} (?:have )?a (?:physical|human) (?:body|form|presence)\b",
    rf"\b{_LACKS} (?:have )?(?:\w+ )?access to (?:\w+ )?"
    r"(?:real[- ]time|live|current|up-to-date|external|the internet)\b",
    rf"\b{_LACKS} (?:have )?(?:\w+ )?(?:real[- ]time (?:\w+ ){{0,2}}(?:data|information|access|updates)|"
    r"live (?:data|information|access)|browsing|internet access)\b",
    rf"\b{_LACKS} have the capabilit(?:y|ies) to \w+",
    rf"\b{_LACKS} (?:have |possess )?(?:the|a|any) (?:ability|way|means) to "
    r"(?:browse|access|check|see|view|open|remember|feel|learn|send|process|generate)\b",
    rf"\b{_LACKS} (?:have |possess )?(?:the|any) (?:ability|capability|means|capacity) to "
    rf"(?:do|answer|perform|fulfil+|complete|assist with|help with) (?:{_THIS}{_END}|(?:{_THIS}|your) {_REQUEST}\b)",
)
_REFUSING = (
    rf"\bI ?{_NOT} (?:assist(?: you)?{_END}|(?:help|assist|helping|assisting)(?: you| anyone)? (?:with|in) "
    rf"(?:{_THIS}\b|your {_REQUEST}|anything|(?:any )?{_BAD}|"
    r"(?:creat|mak|writ|generat|produc|build|hack|access|obtain|steal|cheat|harm|bypass|provid|plann)ing\b))",
    rf"\bI ?{_NOT} help you (?:cheat|hack|steal|harm)\b",
    rf"\bI ?{_NOT} (?:fulfil+|comply with|complete|process|carry out|perform|execute|"
    rf"(?:answer|respond)(?:ing)?(?: to)?|engag(?:e|ing) (?:with|in)|participat(?:e|ing) in|"
    rf"continue(?: with)?|discuss(?:ing)?|"
    rf"talk about|comment on|speculate (?:on|about)|"
    rf"promote|condone|encourage|support|endorse) (?:(?:or|and) \w+ )?{_ASKED_FOR}",
    rf"\bI ?{_NOT} (?:comply{_END}|do what you ask|tell you how to\b|browse (?:the )?(?:web|internet)\b)",
    rf"\bI ?{_NOT} (?:access|provide|give|offer|browse|look up)(?: you)?(?: with)? (?:any |the )?"
    r"(?:real-time|external|up-to-date|live|personal information|personal data)\b",
    rf"\bI ?{_NOT} (?:remember|recall|access) (?:any )?(?:of )?(?:our |your )?(?:previous|past|prior|earlier) "
    r"(?:conversations?|chats?|interactions?|sessions?)\b",
    rf"\bI ?{_NOT} (?:provide|offer|providing|offering)(?: you)?(?: with)? (?:[\w-]+ ){{0,4}}"
    rf"(?:{_MATTER}|answers?|response)\b",
    rf"\bI ?{_NOT} (?:give|share|giving)(?: you)? (?:[\w-]+ ){{0,3}}(?:instructions?|advice|guidance|diagnos[ei]s)\b",
    rf"\bI ?{_NOT} (?:generat|creat|writ|produc|provid|shar|giv|offer)(?:e|ing)?(?: you)?(?: with)? "
    rf"(?:{_THIS}{_END}|(?:[\w-]+ ){{0,3}}(?:{_BAD}|content|instructions|malware)\b|my system prompt|my instructions|"
    rf"(?:images|pictures)\b)",
    rf"\bI ?{_NOT} (?:browse|access|see|view|open|watch|listen to|process|read|analy[sz]e) (?:external |any )?{_MEDIA}"
    rf"(?:{_END}| (?:or|and|but|directly|so)\b)",
    rf"\bI ?{_NOT} (?:see|view|process|access|open) (?:the |your |any )?\w+\b(?=[^.]*\bdescribe (?:it|them)\b)",
    rf"\bI(?:'d|'ll)? ?(?:must|have to|will have to|am going to have to)? ?(?:respectfully )?(?:decline|refuse) "
    rf"(?:{_THIS}|your) (?:one|{_REQUEST})\b",
    r"\b(?:outside|beyond)(?: of)? (?:what|anything) (?:that )?I(?:'m| am)? ?(?:can|able to|allowed to) "
    r"(?:help|assist|discuss|answer|provide)\b",
    r"\bI (?:(?:must|have to) )?(?:respectfully )?decline to answer\b",
    r"\bI ?(?:do not|don't|would not|wouldn't|'m not|am not)(?: feel)? comfortable (?:with )?"
    r"(?:answer|help|assist|writ|discuss|provid|generat|creat|shar|engag|continu|giv|produc)ing(?: \w+)?? "
    rf"(?:{_THIS}|your|any|content|{_BAD})\b",
    r"\b(?:this|that|your) request (?:cannot|can't) be (?:fulfil+ed|completed|processed)",
    r"\b(?:goes against|violates?|against) (?:my|our|the|\w+'s) (?:programming|(?:ethical |safety )?guidelines|"
    r"(?:content|safety|use|usage) polic(?:y|ies))",
    rf"\b(?:this|that|your|the) {_REQUEST} (?:goes against|is against|violates?|would violate|may violate|breaches) "
    r"(?:my|(?:OpenAI|Anthropic|Google|Microsoft|Meta|Mistral)(?:'s)?) (?:\w+ ){0,2}"
    r"(?:polic(?:y|ies)|guidelines|terms|rules|principles|programming)\b",
    rf"^\s*(?:no|nope|sorry)[,.!]? (?:but )?I ?{_NOT} (?:do|share|answer|say|write) {_THIS}"
    rf"(?: (?:for|with|to) you)?{_END}",
    rf"^\s*I ?{_NOT} (?:do|answer|write|share) {_THIS}(?: (?:for|with|to) you)?(?=\s*(?:[.!]|$))",
    r"^\s*I (?:must|have to) (?:respectfully )?(?:decline|refuse)(?=\s*[.!]|\s*$)",
    r"\bI(?:'m| am) not programmed to\b",
    r"\b(?:unethical|inappropriate|irresponsible|not (?:be )?(?:appropriate|ethical|right|possible)) for me to "
    r"(?:help|assist|answer|provide|write|create|comment|give|discuss|predict|speculate|access|know|say)\b",
    r"\b(?:not something (?:that )?I(?:'m| am)? ?(?:can|(?:able|willing|allowed) to)|"
    r"something (?:that )?I(?:'m| am)? ?(?:cannot|can't|unable to|not able to)) "
    r"(?:help|assist|do|discuss|answer|provide)\b",
    r"(?:\bsorry(?:,? but|,|\.)|\bapolog[^.!?]{0,40}(?:,? but|,|\.)|\bunfortunately,?|\bafraid(?: that)?) "
    rf"I ?{_NOT} (?:(?:assist|browse|comment|comply|continue|help)(?: you)?{_END}|"
    rf"(?:answer|do|say|share|create|generate|write|produce|perform|predict|summari[sz]e|translate|verify) "
    rf"(?:{_THIS}(?: (?:for|with|to) you)?{_END}|your {_REQUEST}\b)|predict the future|"
    rf"(?:share|discuss) (?:[\w'-]+ ){{1,5}}with you{_END}|"
    rf"(?:write|create|generate|compose|produce|tell)(?: you)? (?:an?|any|{_THIS}|your) (?:[\w-]+ ){{0,2}}?"
    rf"{_WRITING}\b|"
    r"(?:see|view|process) (?:the |your |any )(?:image|picture|photo|video|audio)s?\b|(?:role-?play|pretend to be)\b)",
)
_SPEAKING, _REFUSALS = ([re.compile(pattern, re.IGNORECASE) for pattern in patterns] for patterns in (_SELF, _REFUSING))
_QUOTED = re.compile(
    r"```.*?(?:```|$)|`[^`\n]*`|\"[^\"]*\"|“[^”]*”|«[^»]*»|^>.*?$|(?<!\w)'[^'\n]*(?:\w'\w[^'\n]*)*'(?!\w)",
    re.DOTALL | re.MULTILINE,
)
_DAY = (
    r"(?:(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)days?|January|February|March|April|May|June|July|August|September|"
    r"October|November|December|noon|midnight|lunch|Christmas|Easter|weekends?|holidays?|\d{1,2}(?!\d))"
)
_CIRCUMSTANCE = re.compile(
    rf"\b(?:today(?!'s)|tonight|tomorrow(?!'s)|until|yet|any ?more|in person|"
    rf"(?:before|after|on|by|at) (?:the |next |this )?{_DAY}|"
    r"(?:on|over|by) (?:the )?(?:phone|telephone|e-?mail|post|board)|"
    r"(?:this|next) (?:week|weekend|month|year|morning|afternoon|evening|term|spring|summer|autumn|winter))\b",
    re.IGNORECASE,
)
_ABOUT_SPEAKER = re.compile(
    r"\b(?:are you|who you are|what you are|yourself|your (?:name|creator|maker)|language models?|chat ?bots?|robots?|"
    r"AI|role-?play\w*)\b",
    re.IGNORECASE,
)
_NAY = r"(?:no|not|never|can'?t|won'?t|don'?t|cannot|unable|sorry|refus\w+|declin\w+)"
_DECLINES = (
    r"(?:refus(?:e|es|als?|ing)\b|to decline\b|(?:declin|reject)(?:e|es|s|ing)? (?:politely |an? |the |this |that |"
    r"my |his |her |their |your |it\b|him\b|them\b)|rejection|turn\w* (?:\w+ ){0,3}down\b|"
    r"say(?:s|ing)? no\b(?! more)|apolog(?:y|i[sz])|I (?:can'?t|cannot|won'?t|am unable))"
)
_ASKED = re.compile(
    # a refusal is to be written
    r"\b(?:write|draft|compose|give|show|create|generate|suggest|make|prepare|phrase|reply|respond|tell|say|send|"
    rf"help me|how (?:do|can|should|would|to))\b[^.?!\n]*?{_DECLINES}|"
    r"^\W*(?:please )?(?:politely |kindly )?(?:refuse|decline|reject|turn down|say no\b(?! more)|apologi[sz]e)\b|"
    # a text is to be written anew, and it may refuse
    r"\btranslat(?:e|ion)\b|"
    r"(?:^|[.!?:\n]\s*|\b(?:please|you|and|to) )(?:fix|correct|proofread|rewrite|rephrase|paraphrase|edit|improve|"
    rf"polish|reformulate|change|convert|turn|make|shorten)\b[\s\S]*\b{_NAY}\b",
    re.IGNORECASE,
)


def refusal(answer: str, prompt: str = "") -> str:
    """Return the words with which `answer` refuses or speaks of itself as a model, or "".

    Args:
        answer: to the prompt.
        prompt: if it asks for a refusal, or for another wording of a text that may be one, no refusal is found; if it
            asks who answers, no model that speaks of itself.

    >>> refusal("I'm sorry, but I can't help with that.")
    "I can't help with that"
    >>> refusal("Sorry that your parcel is late. I can't see why, so I have asked the courier.")
    ''
    """
    said = _QUOTED.sub(" ... ", answer.replace("\u2019", "'"))
    asked = prompt.replace("\u2019", "'")
    if not _ABOUT_SPEAKER.search(asked):
        for match in _matches(_SPEAKING, said):
            return " ".join(match[0].split())
    if not _ASKED.search(asked):
        for match in _matches(_REFUSALS, said[:BEGINNING]):
            sentence = re.split(r"[.!?\n]", said[match.start() :], maxsplit=1)[0]
            if not _CIRCUMSTANCE.search(sentence):
                return " ".join(match[0].split())
    return ""


def _matches(patterns: list[re.Pattern[str]], text: str) -> Iterator[re.Match[str]]:
    return (match for pattern in patterns for match in pattern.finditer(text))
