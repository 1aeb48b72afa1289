"""Keys, tokens and passwords in a text: what lets someone in who reads it.

The forms of the keys are those that their issuers publish, and that the open lists of gitleaks and detect-secrets have.
The plugins of detect-secrets (1.5.0, of May 2024) are not used: they know no key of Anthropic, Google or Hugging Face
and only the old one of OpenAI, take every "://a:b@c" and most assignments for a secret, search line by line without a
limit, and import requests to ask the issuer whether a key is valid, which an audit that runs offline must never do.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator

from ftlab.data.audit.spans import Span

# What a key begins with: a text without it has no such key. Then its name and form. They stand under a character that
# all of them have, since most texts do not have it.
_KEYS: dict[str, tuple[tuple[tuple[str, ...], str, str], ...]] = {
    "": (
        (("AKIA", "ASIA", "ABIA", "ACCA"), "AWS access key", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}"),
        (("AIza",), "Google key", r"AIza[\w-]{35}"),
        (("LTAI",), "Alibaba Cloud key", r"LTAI(?=[A-Za-z]*\d)[A-Za-z0-9]{16,20}"),
        (("EAAA",), "Square token", r"EAAA[\w-]{60}"),
        (("ATATT3", "ATCTT3"), "Atlassian token", r"AT[AC]TT3[\w=-]{50,300}"),
    ),
    "_": (
        (("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), "GitHub token", r"gh[pousr]_[A-Za-z0-9]{36,255}"),
        (("github_pat_",), "GitHub token", r"github_pat_[A-Za-z0-9_]{50,255}"),
        (("k_live_", "k_test_"), "Stripe key", r"[rs]k_(?:live|test)_[A-Za-z0-9]{10,250}"),
        (("whsec_",), "Stripe webhook secret", r"whsec_[A-Za-z0-9+/=]{20,100}"),
        (("hf_", "api_org_"), "Hugging Face token", r"(?:hf|api_org)_[A-Za-z0-9]{30,50}"),
        (("npm_",), "npm token", r"npm_[A-Za-z0-9]{36}"),
        (("shp",), "Shopify token", r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}"),
        (("_v1_",), "DigitalOcean token", r"do[op]_v1_[0-9a-f]{64}"),
        (("gsk_",), "Groq key", r"gsk_[A-Za-z0-9]{40,60}"),
        (("r8_",), "Replicate token", r"r8_[A-Za-z0-9]{37,40}"),
        (("dckr_pat_",), "Docker token", r"dckr_pat_[\w-]{20,60}"),
        (("ntn_", "secret_"), "Notion token", r"(?:ntn|secret)_[A-Za-z0-9]{43,50}"),
        (("lin_api_",), "Linear key", r"lin_api_[A-Za-z0-9]{40}"),
        (("sbp_", "sb_secret_"), "Supabase key", r"(?:sbp_[0-9a-f]{40}|sb_secret_[\w-]{20,60})"),
        (("nfp_", "nfc_", "nfo_"), "Netlify token", r"nf[pco]_[A-Za-z0-9]{36,40}"),
        (("figd_", "figo_"), "Figma token", r"fig[do]_[\w-]{36,60}"),
        (("rubygems_",), "RubyGems key", r"rubygems_[0-9a-f]{48}"),
        (("glsa_",), "Grafana token", r"glsa_[A-Za-z0-9]{32}_[0-9a-fA-F]{8}"),
        (("glc_",), "Grafana token", r"glc_[A-Za-z0-9+/]{32,400}={0,2}"),
        (("pscale_",), "PlanetScale password", r"pscale_(?:tkn|pw|oauth)_[\w.=-]{32,64}"),
        (("fw_",), "Fireworks key", r"fw_(?=[A-Za-z]*\d)[A-Za-z0-9]{22,24}"),
        (("tgp_v1_",), "Together key", r"tgp_v1_[\w-]{43}"),
        (("wandb_v1_",), "Weights & Biases key", r"wandb_v1_\w{40,90}"),
        (("sntrys_", "sntryu_"), "Sentry token", r"(?:sntryu_[0-9a-f]{64}|sntrys_[\w+/=]{50,400})"),
        (("sqp_", "squ_", "sqa_"), "SonarQube token", r"sq[pua]_[0-9a-f]{40}"),
        (("lsv2_",), "LangSmith key", r"lsv2_(?:pt|sk)_[0-9a-f]{32}_[0-9a-f]{10}"),
        (("pcsk_",), "Pinecone key", r"pcsk_[A-Za-z0-9_]{50,90}"),
        (("sk_",), "ElevenLabs key", r"sk_[0-9a-f]{48}"),
    ),
    "-": (
        (("sk-ant-",), "Anthropic key", r"sk-ant-(?:[a-z]{2,8}\d{2}-)?[\w-]{20,200}"),
        (("sk-",), "OpenAI key", r"sk-(?:(?:proj|svcacct|admin|or-v1|None)-[\w-]{20,220}|[A-Za-z0-9]{20,100})"),
        (("glpat-", "gldt-", "glrt-", "glptt-", "glft-", "glsoat-", "glcbt-", "glagent-"), "GitLab token",
         r"gl(?:pat|dt|rt|ptt|ft|soat|cbt|agent)-[\w-]{20,300}(?:\.[0-9a-z]{2}\.?[0-9A-Za-z]{7,9})?"),
        (("GOCSPX-",), "Google client secret", r"GOCSPX-[\w-]{20,40}"),
        (("xox",), "Slack token",
         r"xox(?:[abceoprs]-(?:(?:\d{1,2}-)?\d{6,}-[A-Za-z0-9-]{6,240}|\d-[A-Za-z0-9]{50,250})|d-[\w%+/=-]{40,250})"),
        (("xapp-",), "Slack token", r"xapp-\d-[A-Za-z0-9-]{10,250}"),
        (("pypi-",), "PyPI token", r"pypi-AgE[\w-]{50,400}"),
        (("xai-",), "xAI key", r"xai-[A-Za-z0-9]{60,100}"),
        (("AGE-SECRET-KEY-1",), "age key", r"AGE-SECRET-KEY-1[A-Z0-9]{58}"),
        (("nvapi-",), "NVIDIA key", r"nvapi-[\w-]{60,80}"),
        (("pplx-",), "Perplexity key", r"pplx-[A-Za-z0-9]{32,64}"),
        (("NRAK-",), "New Relic key", r"NRAK-[A-Z0-9]{27}"),
        (("key-",), "Mailgun key", r"key-[0-9a-f]{32}"),
        (("-us",), "Mailchimp key", r"[0-9a-f]{32}-us\d{1,2}"),
        (("sq0",), "Square token", r"sq0[a-z]{3}-[\w-]{22,43}"),
        (("HRKU-",), "Heroku key", r"HRKU-[\w-]{36,70}"),
        (("FLWSECK",), "Flutterwave key", r"FLWSECK(?:_TEST)?-[0-9a-zA-Z]{32}-X"),
        (("PMAK-",), "Postman key", r"PMAK-[0-9a-f]{24}-[0-9a-f]{34}"),
        (("pat-na1", "pat-eu1"), "HubSpot token", r"pat-(?:na|eu)1-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
        (("CFPAT-",), "Contentful token", r"CFPAT-[\w-]{43}"),
        (("tskey-",), "Tailscale key", r"tskey-[a-z]{2,12}-[A-Za-z0-9]{8,40}-[A-Za-z0-9]{16,60}"),
        (("csk-",), "Cerebras key", r"csk-[a-z0-9]{48}"),
        (("pul-",), "Pulumi token", r"pul-[0-9a-f]{40}"),
        (("tvly-",), "Tavily key", r"tvly-(?:dev-|prod-)?[A-Za-z0-9]{32}"),
    ),
    ".": (
        (("ya29.",), "Google token", r"ya29\.[\w-]{20,400}"),
        (("SG.",), "SendGrid key", r"SG\.[\w-]{16,32}\.[\w-]{30,64}"),
        (("hvs.",), "Vault token", r"hvs\.[\w-]{24,200}"),
        (("hooks.sl",), "Slack webhook", r"hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9/]{20,120}"),
        (("webhooks/",), "Discord webhook", r"discord(?:app)?\.com/api/(?:v\d{1,2}/)?webhooks/\d{17,20}/[\w-]{60,80}"),
        # The first part is a number of 17 to 20 digits in base64.
        (("MT", "Mj", "Mz", "ND", "NT", "Nj", "Nz", "OD", "OT"), "Discord bot token",
         r"(?:M[Tjz]|N[DTjz]|O[DT])[A-Za-z\d]{21,26}\.[\w-]{6}\.[\w-]{27,38}"),
        (("dp.",), "Doppler token", r"dp\.(?:pt|st|ct|sa|scim|audit)\.(?:[a-z\d_-]{2,35}\.)?[A-Za-z0-9]{40,44}"),
        ((".atlasv1.",), "Terraform token", r"[A-Za-z0-9]{14}\.atlasv1\.[\w-]{60,70}"),
        (("pat",), "Airtable token", r"pat[A-Za-z0-9]{14}\.[0-9a-f]{64}"),
        (("sk.eyJ",), "Mapbox token", r"sk\.eyJ[\w-]{40,120}\.[\w-]{20,30}"),
    ),
    "a": (
        (("SK",), "Twilio key", r"SK[0-9a-f]{32}"),
        (("dapi",), "Databricks token", r"dapi[0-9a-f]{32}(?:-\d)?"),
    ),
    "=": ((("AccountKey=",), "Azure storage key", r"(?<=AccountKey=)[A-Za-z0-9+/]{80,90}={0,2}"),),
    ":": (((":AA",), "Telegram bot token", r"\d{8,10}:AA[\w-]{32,34}"),),
}  # fmt: skip
KEYS = {
    character: [
        (starts, name, re.compile(form if form.startswith("(?<=") else rf"(?<![A-Za-z0-9_]){form}(?![A-Za-z0-9_])"))
        for starts, name, form in keys
    ]
    for character, keys in _KEYS.items()
}
SHORTEST = 15  # characters of a key, at least, without white space
JWT = re.compile(r"(?<![A-Za-z0-9_.-])(eyJ[\w-]{8,2000})\.[\w-]{8,4000}\.[A-Za-z0-9_-]{8,2000}(?![A-Za-z0-9_-])")
# The body is base64 with headers and line ends, also as the two characters \n of JSON and of code: all before the end,
# or, if that is missing, as far as it can be such a body.
PRIVATE_KEY = re.compile(
    r"-----BEGIN (?P<kind>(?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?)-----"
    r"(?:(?P<body>[^-]*(?:-(?!----)[^-]*)*)-----END (?P=kind)-----"
    r"|(?P<rest>(?:[A-Za-z0-9+/=\s\\:,.()]|-(?!-)){0,20000}))"
)
_BASE64 = re.compile(r"[A-Za-z0-9+/]{20,}")
# ://name:password@host; a password may have "@" or "/" in it. A port and a path are none.
IN_URL = re.compile(r"://[^\s:/@'\"<>]{0,80}:(?!\d{1,5}(?:[/?#]|$))(?P<value>[!#-&(-;=?-~À-ɏ]{3,128})@(?=[\w.\[-])")
_PLAIN = re.compile(r"[^\s/@]+")
TOKEN_IN_URL = re.compile(r"://([\w.~-]{20,255})@(?![\w.-]{0,80}\bsentry\b)(?=[\w\[])", re.ASCII)
BEARER = re.compile(
    r"(?<![A-Za-z0-9])Authorization[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?:Bearer|Basic|Token)\s{1,3}([\w.~+/=-]{12,2000})",
    re.IGNORECASE,
)
PASSWORDS = (
    "password", "passwd", "passphrase", "passcode", "pwd", "pw", "passwort", "kennwort", "contraseña", "clave",
    "mot de passe", "senha", "wachtwoord", "hasło", "parola", "пароль", "密码", "密碼", "パスワード", "비밀번호",
    "كلمة المرور", "पासवर्ड", "รหัสผ่าน",
)  # fmt: skip
WORDS = (  # what a secret is called
    *PASSWORDS, "secret", "api_key", "api-key", "apikey", "api key", "access_key", "access-key", "accesskey",
    "private_key", "auth_token", "auth-token", "authtoken", "access_token", "access-token", "accesstoken", "api_token",
    "refresh_token", "bot_token", "token",
)  # fmt: skip
# Each of these words in ASCII has one of these parts; a header, a key of AWS and a command has one too. The first two
# can stand in prose ("the password is ..."), the others need a sign such as ":" after them.
STEMS = (
    "pass", "kennwort", "secret", "key", "token", "pw", "authorization", "senha", "wachtwoord", "parola", "mot de",
    "clave", "curl",
)  # fmt: skip
COMMANDS = ("mysql", "mariadb", "docker login", "-token", "-key", "-secret")  # with a secret after a space
IN_ASSIGNMENTS = {True: (*STEMS, *COMMANDS), False: (*STEMS[:2], *COMMANDS)}  # by whether there are signs in the text
IN_COMMANDS = ("mysql", "mariadb", "docker login", "curl", "sshpass", "-pass", "-token", "-secret", "-key")
_QUOTED = (
    r"(?P<quote>\\?[\"'`])(?P<quoted>(?:(?!(?P=quote))(?:\\[^\n]|[^\\\n])){6,200})(?P=quote)"
    r"|[“„«「『](?P<curly>[^“”»」』\n]{6,200})[“”»」』]"
)
# A value ends before a tag, before the next "name=", and before a letter of a script that has no spaces.
_UNQUOTED = (
    r"(?P<value>(?:[!#$%(-+./0-:=?-_a-~À-ɏ]|[,;&](?!\w{1,30}[=:])|<(?![a-z/!])|>(?=\w)"
    r"|(?<=[A-Za-z0-9])[\"'`](?=[A-Za-z0-9])){6,200})"
)
_SIGN = (
    r"\s{0,3}(?:=>|:=|[=:：])[*_]{0,3}\s{0,3}|\s{0,3}[!=]==?\s{0,3}(?=[\"'`])|>|\s{1,3}value\s?=\s?|\s(?=[\"'`“„])"  # noqa: RUF001
    r"|(?P<prose>\s(?:is|was|ist|lautet|es|est)\s:?\s?|\s(?:->|→|\||—|–|-)\s|\s?(?:是|为|為|は|는|은|هي|है|คือ)\s{0,3})"  # noqa: RUF001
)
# password = "value", "password": "value", PASSWORD=value, password: value, password is value, <password>value</...
# All of that but the value.
NAMED = (
    r"(?:(?<![A-Za-z0-9])|(?<=PG)|(?-i:(?<=[a-z])(?=[A-Z][a-z]))|(?<=[a-z])(?=passwort|kennwort))"
    rf"(?:(?P<password>{'|'.join(map(re.escape, sorted(PASSWORDS, key=len, reverse=True)))}|pass(?=\s?[:=]))s?"
    rf"|(?:{'|'.join(map(re.escape, sorted(set(WORDS) - {*PASSWORDS}, key=lambda word: (-len(word), word))))}))"
    r"(?:_?key|_?access_?key|_?token)?"
    rf"(?P<close>[*_]{{0,3}}(?:\\?[\"'`])?\]?)(?P<sign>{_SIGN})"
)
ASSIGNED = re.compile(NAMED + rf"(?:[rbfu](?=[\"']))?(?:{_QUOTED}|{_UNQUOTED})", re.IGNORECASE)
# --password value, sshpass -p value, curl -u name:value, mysql -pvalue
COMMAND = re.compile(
    r"(?:--(?:[a-z]{1,20}-){0,3}(?:password|passwd|passphrase|pass|token|secret|key)\s{1,2}|\bsshpass\s{1,3}-p\s?"
    r"|\bcurl\s[^\n|]{0,200}?(?<=\s)(?:-u|--user)[ =]?[\"']?[^\s:\"']{1,64}:"
    r"|\b(?:mysql\w{0,10}|mariadb)\s[^\n|]{0,100}?(?<=\s)-p(?=\S)|\bdocker login\s[^\n|]{0,100}?(?<=\s)-p\s)"
    r"[\"']?(?P<value>[^\s\"']{6,200})"
)
# The words in ASCII under the first of STEMS that is in them; those that begin with "pass" are found by that.
_BY_STEM = {
    stem: [stem] if stem == "pass" else [
        word for word in WORDS if next((each for each in STEMS if each in word), "") == stem
    ]
    for stem in STEMS
}  # fmt: skip
_BY_STEM["mot de"] = ["mot de passe"]
_PASS = re.compile(r"\bpass\s?[:=]")
AWS_SECRET = re.compile(
    r"aws.{0,30}?(?:secret|key).{0,20}?[\"'=:\s]([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])", re.IGNORECASE | re.DOTALL
)
_PLACEHOLDER = re.compile(
    r"example|your|placeholder|change.?me|redacted|dummy|insert|replace|x{4}|\*{3}|\.{3}|…|foobar|\btodo\b|_here\b"
    r"|^(?:pass|my|the|some|user|new|old|db|test|secret|admin|api|auth|access|root|token|key|passwd|password|word|pwd"
    r"|[-_ ])+$",
    re.IGNORECASE,
)
_IN_A_KEY = re.compile(r"example|your|placeholder|x{6}|redacted|dummy|here$", re.IGNORECASE)
# Not a value but where it comes from: a variable, a call, a template, a type, a link.
_EXPRESSION = re.compile(
    r"^[$%{(\[<&@*#!]|^\w+(?:\.\w+)*[(\[]|\$\{|\{\{|%\(|://|^(?:[a-z_]\w*\??\.)+[a-z_]\w*$|^--|^0x[\da-f]+$|^\w+[)\]]|\{[A-Za-z_][\w.]*\}",
    re.I,
)
# What is said of a password, and names with a digit that everybody knows.
_ABOUT = re.compile(
    r"^(?:wrong|incorrect|correct|invalid|valid|weak|strong|secure|unknown|missing|empty|same|hashed|hash|encrypted|"
    r"encoded|required|optional|sha|md|aes|rsa|utf|base|wpa|pbkdf|bcrypt|argon|hmac|crc|des|ecc|ed|web|oauth|python|"
    r"windows|office|iphone|ipad|android|enter|type|page|step|chapter|section|line|string|str|field|input|param|arg|var|"
    r"form|value|text|level)[-_]?\d|^1password|^\d+\W?(?:chars?|characters?|digits?|letters?|symbols?|words?|bytes?|bits?"
    r"|min|max)\b|\d(?:chars?|characters|digits|letters|symbols|words|bytes|bits)$|^\d+(?:st|nd|rd|th|s|d)\b",
    re.IGNORECASE,
)
# A sentence about a password in quotation marks, such as a message of a form.
_SENTENCE = re.compile(
    r"\b(?:an?|the|you|must|should|can|cannot|may|be|is|are|was|has|have|had|least|most|than|characters?|chars|digits?|"
    r"letters?|symbols?|numbers?|minimum|maximum|min|max|enter|type|use|please|password|passphrase|passcode|secret|key|"
    r"token|code|in|on|of|for|to|with|at|by|from|not|no|new|confirm|long|short|page|step|chapter|muss|mindestens|zeichen|"
    r"bitte|der|die|das|und|le|la|les|el|los|de|caracteres|du|mot|au|moins)\b",
    re.IGNORECASE,
)
_PART = re.compile(r"[A-Za-z]*\d{0,3}|\d{1,3}[A-Za-z]*|[A-Za-z]{2,}\d[A-Za-z]{2,}|v\d\w{0,8}")  # of a name
_NAMED = re.compile(r"pass|user|key|hash|token|secret|input|string|param|field|value|form|self|temp|model|vers", re.I)
_NAME = re.compile(r"[A-Za-z_]\w*")
_HUMP = re.compile(r"[a-z]\d*[A-Z][a-z]{2}")


def find(text: str) -> Iterator[Span]:
    """Yield the keys, tokens and passwords in `text`, the surest first. Placeholders such as "YOUR_API_KEY" are none.

    >>> [span.name for span in find("ask for hf_" + "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA1bC3" + ", or password: ********")]
    ['Hugging Face token']
    """
    for name, start, end in _found(text):
        yield Span(start, end, "secrets", name)


def _found(text: str) -> Iterator[tuple[str, int, int]]:
    if "PRIVATE KEY" in text:
        for match in PRIVATE_KEY.finditer(text):
            if _is_body(match["body"] if match["body"] is not None else match["rest"]):
                yield "private key", match.start(), match.end()
    long = " ".join([word for word in text.split() if len(word) >= SHORTEST])
    for character, keys in KEYS.items() if long else ():
        if character in long:
            yield from _keys(text, long, keys)
    if "eyJ" in text:
        for match in JWT.finditer(text):
            if _is_header(match[1]):
                yield "JSON web token", match.start(), match.end()
    if "://" in text and "@" in text:
        for match in IN_URL.finditer(text):
            value = match["value"]
            if is_placeholder(value) or _EXPRESSION.search(value):
                continue
            if _PLAIN.fullmatch(value) or _is_mixed(value):
                yield "password in a URL", *match.span("value")
        for match in TOKEN_IN_URL.finditer(text):
            if _is_random("user" + match[1]) and any(map(str.isdigit, match[1])) and not _is_wordy(match[1]):
                yield "token in a URL", *match.span(1)
    yield from assigned(text)


def _keys(
    text: str, long: str, keys: list[tuple[tuple[str, ...], str, re.Pattern[str]]]
) -> Iterator[tuple[str, int, int]]:
    """Yield the `keys` in `text`, whose `long` words have the beginning of one."""
    for starts, name, pattern in keys:
        for start in starts:
            if start in long:
                for match in pattern.finditer(text):
                    if _is_random(match[0]):
                        yield name, match.start(), match.end()
                break


def assigned(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield name, start and end of each value in `text` that a name such as "password" stands before."""
    lower = text.lower()
    signs = ":" in text or "=" in text or "</" in text or not text.isascii()
    if text.isascii() and not any(map(lower.__contains__, IN_ASSIGNMENTS[signs])):
        return
    for match in _assignments(text, lower):
        if _is_password(match):
            yield "password or key with its name", *_value(match)
    for match in COMMAND.finditer(text) if any(map(lower.__contains__, IN_COMMANDS)) else ():
        value = match["value"]
        if _is_mixed(value) and not is_placeholder(value) and not _EXPRESSION.search(value) and not _is_wordy(value):
            yield "password or key in a command", *match.span("value")
    if "authorization" in lower:
        for match in BEARER.finditer(text):
            if not is_placeholder(match[1]) and _is_mixed(match[1]):
                yield "authorization header", *match.span(1)
    if "aws" in lower:
        for match in AWS_SECRET.finditer(text):
            if _is_random(match[1]):
                yield "AWS secret key", *match.span(1)


def _assignments(text: str, lower: str) -> Iterator[re.Match[str]]:
    """Yield the matches of ASSIGNED in `text`. They are tried where a word begins, which is quicker."""
    if text.isascii():
        words = [word for stem in _BY_STEM if stem in lower for word in _BY_STEM[stem]]
    elif not _PASS.search(lower) and not any(map(lower.__contains__, WORDS)):
        return
    elif len(lower) == len(text) and not any(letter in text for letter in "\u0131\u017f"):
        words = ["pass", *WORDS]
    else:  # some letters are not where they are in small letters, or match another letter
        yield from ASSIGNED.finditer(text)
        return
    end = 0
    for at in sorted({at for word in words for at in _places(lower, word)}):
        if at >= end and (match := ASSIGNED.match(text, at)):
            yield match
            end = match.end()


def _places(text: str, word: str) -> Iterator[int]:
    at = text.find(word)
    while at >= 0:
        yield at
        at = text.find(word, at + 1)


def is_placeholder(value: str) -> bool:
    """Return whether `value` stands where a secret will be, as in documentation.

    >>> is_placeholder("YOUR_API_KEY"), is_placeholder("********"), is_placeholder("tr0ub4dor&3")
    (True, True, False)
    """
    return len(set(value.strip("-_"))) <= 3 or _PLACEHOLDER.search(value) is not None


def _is_random(key: str) -> bool:
    """Whether a key of a known form is one: no placeholder, and no words joined by signs."""
    body = key[4:]
    kinds = any(map(str.isdigit, body)) + any(map(str.islower, body)) + any(map(str.isupper, body))
    return (kinds >= 2 or body.isupper()) and len(set(body)) >= 8 and not _IN_A_KEY.search(key)


def _is_header(encoded: str) -> bool:
    """Whether the first part of a JSON web token is a JSON object with an algorithm (RFC 7519)."""
    try:
        header = json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except (ValueError, RecursionError):
        return False
    return isinstance(header, dict) and "alg" in header


def _is_body(written: str) -> bool:
    """Whether `written` between the lines of a private key is one: it has base64 of a line's length."""
    body = "".join(_BASE64.findall(written.replace("\\n", "\n").replace("\\r", "\n")))
    return len(body) >= 40 and len(set(body)) >= 10 and any(map(str.isupper, body)) and any(map(str.islower, body))


def _value(match: re.Match[str]) -> tuple[int, int]:
    """Where the value of an assignment stands, without the punctuation after it."""
    for group in ("quoted", "curly"):
        if match[group] is not None:
            return match.span(group)
    start, _ = match.span("value")
    return start, start + len(match["value"].rstrip(".,;:!?)]}>"))


def _is_password(match: re.Match[str]) -> bool:
    start, end = _value(match)
    value = match.string[start:end]
    if len(value) < 6 or is_placeholder(match["value"] or value) or _EXPRESSION.search(value) or _ABOUT.search(value):
        return False
    if not _is_mixed(value) or (match["password"] is None and "\n" in match["sign"]):
        return False
    if match["sign"] == ">":  # an element of XML
        return match.string.startswith("</", end)
    quoted = match["value"] is None
    if " " in value:  # a pass phrase, or a sentence in quotation marks
        return match["password"] is not None and value.isascii() and not _SENTENCE.search(value)
    if match["password"] is None:
        return len(value) >= (10 if quoted else 12) and (value[-1] == "!" or not _is_wordy(value))
    if quoted:
        return True
    if re.fullmatch(r"\w+/\w+", value):
        return False  # a path
    if match["prose"] is not None:
        return "-" not in value and any(map(str.isdigit, value)) and not _is_name(value)
    return _is_sure(value, match["sign"])


def _is_sure(value: str, sign: str) -> bool:
    """Whether a password without quotation marks is one: more than a word with one digit, and no name of a variable."""
    digits = sum(map(str.isdigit, value))
    signs = not value.replace("_", "").replace("-", "").isalnum()
    if signs:
        return digits > 0 or not _is_wordy(value)
    if _is_name(value) or ("-" in value and _is_wordy(value)):
        return False
    inside = value.rstrip("0123456789")
    return digits > 1 or sign == "=" or (any(map(str.isdigit, inside)) and any(map(str.isupper, inside)))


def _is_name(value: str) -> bool:
    """Whether `value` is more likely the name of a variable than a password."""
    if not _NAME.fullmatch(value):
        return False
    return (
        _NAMED.search(value) is not None
        or ("_" in value and _is_wordy(value))
        or (_HUMP.search(value) is not None and _is_wordy(value) and sum(map(str.isdigit, value)) < 2)
    )


def _is_wordy(value: str) -> bool:
    """Whether `value` is words that signs join, each with a number at one end at most: "my-secret-v1"."""
    return all(map(_PART.fullmatch, re.split(r"[-_./:+ ]+", value)))


def _is_mixed(value: str) -> bool:
    """Whether `value` has digits beside letters, or signs beside both cases: a word, a number or a date has not."""
    letters, digits = any(map(str.isalpha, value)), any(map(str.isdigit, value))
    if letters and digits:
        return True
    kinds = [any(map(str.islower, value)), any(map(str.isupper, value)), not value.replace("_", "").isalnum()]
    return letters and all(kinds)
