"""Keys and tokens in the form of their issuers, drawn anew: none opens anything, and none stands in a file."""

import base64
import json
import random
import string
from collections.abc import Callable

LETTERS, DIGITS, HEX = string.ascii_letters, string.digits, "0123456789abcdef"


def keys(seed: int) -> dict[str, str]:
    """A key of each known form, by its name."""
    rng = random.Random(seed)

    def drawn(count: int, of: str = LETTERS + DIGITS) -> str:
        return "".join(rng.choices(of, k=count))

    def encoded(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    wide = LETTERS + DIGITS + "_-"
    body = "\n".join(drawn(64, LETTERS + DIGITS + "+/") for _ in range(12))
    forms: dict[str, Callable[[], str]] = {
        "AWS access key": lambda: "AKIA" + drawn(16, string.ascii_uppercase + "234567"),
        "AWS session key": lambda: "ASIA" + drawn(16, string.ascii_uppercase + "234567"),
        "GitHub": lambda: rng.choice(["ghp_", "gho_", "ghs_"]) + drawn(36),
        "GitHub, fine-grained": lambda: f"github_pat_{drawn(22)}_{drawn(59)}",
        "GitLab": lambda: "glpat-" + drawn(20, wide[:-1]),
        "OpenAI": lambda: f"sk-{drawn(20)}T3BlbkFJ{drawn(20)}",
        "OpenAI, of a project": lambda: f"sk-proj-{drawn(74, wide)}T3BlbkFJ{drawn(74, wide)}",
        "Anthropic": lambda: f"sk-ant-api03-{drawn(93, wide)}AA",
        "Google": lambda: "AIza" + drawn(35, wide[:-2]),
        "Slack": lambda: f"xoxb-{drawn(12, DIGITS)}-{drawn(12, DIGITS)}-{drawn(24)}",
        "Slack webhook": lambda: f"https://hooks.slack.com/services/T{drawn(8)}/B{drawn(8)}/{drawn(24)}",
        "Stripe": lambda: rng.choice(["sk_live_", "rk_live_", "sk_test_"]) + drawn(24),
        "Hugging Face": lambda: "hf_" + drawn(34, LETTERS),
        "npm": lambda: "npm_" + drawn(36),
        "PyPI": lambda: "pypi-AgEIcHlwaS5vcmc" + drawn(120, wide),
        "SendGrid": lambda: f"SG.{drawn(22)}.{drawn(43)}",
        "JSON web token": lambda: f"{encoded({'alg': 'HS256', 'typ': 'JWT'})}.{encoded({'sub': drawn(9)})}.{drawn(43)}",
        "private key": lambda: f"-----BEGIN RSA PRIVATE KEY-----\n{body}\n-----END RSA PRIVATE KEY-----",
        "private key in JSON": lambda: json.dumps(f"-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n"),
        "DigitalOcean": lambda: "dop_v1_" + drawn(64, HEX),
        "Databricks": lambda: "dapi" + drawn(32, HEX),
        "Telegram": lambda: f"{drawn(10, '123456789')}:AA{drawn(33)}",
        "AWS secret key": lambda: f"aws_secret_access_key = {drawn(40)}",
        "bearer": lambda: f"Authorization: Bearer {drawn(40)}",
        "GitLab, routable": lambda: f"glpat-{drawn(27)}.01.{drawn(9, '0123456789abcdefgh')}",
        "NVIDIA": lambda: "nvapi-" + drawn(64, wide),
        "Perplexity": lambda: "pplx-" + drawn(48),
        "Supabase": lambda: "sbp_" + drawn(40, HEX),
        "Netlify": lambda: "nfp_" + drawn(36),
        "Figma": lambda: "figd_" + drawn(40),
        "Doppler": lambda: "dp.pt." + drawn(43),
        "Atlassian": lambda: f"ATATT3xFfGF0{drawn(180)}={drawn(8, HEX.upper())}",
        "RubyGems": lambda: "rubygems_" + drawn(48, HEX),
        "Terraform": lambda: f"{drawn(14)}.atlasv1.{drawn(67)}",
        "Grafana": lambda: f"glsa_{drawn(32)}_{drawn(8, HEX)}",
        "New Relic": lambda: "NRAK-" + drawn(27, string.ascii_uppercase + DIGITS),
        "Mailgun": lambda: "key-" + drawn(32, HEX),
        "Mailchimp": lambda: drawn(32, HEX) + "-us12",
        "Square": lambda: "sq0atp-" + drawn(22),
        "Heroku": lambda: "HRKU-" + drawn(60),
        "PlanetScale": lambda: "pscale_tkn_" + drawn(43),
        "Discord": lambda: f"{encoded(int('1' + drawn(16, DIGITS)))}.{drawn(6)}.{drawn(38)}",
        "Discord webhook": lambda: f"https://discord.com/api/webhooks/1{drawn(17, DIGITS)}/{drawn(68)}",
        "Postman": lambda: f"PMAK-{drawn(24, HEX)}-{drawn(34, HEX)}",
        "Tailscale": lambda: f"tskey-auth-{drawn(12)}-{drawn(32)}",
        "token in a URL": lambda: f"https://{drawn(40)}@github.com/jo/films",
        "private key with headers": lambda: (
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,"
            f"{drawn(32, HEX.upper())}\n\n{body}\n-----END RSA PRIVATE KEY-----"
        ),
        "PGP private key": lambda: (
            "-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: GnuPG v2\nComment: me@home - test\n\n"
            f"{body}\n=abcd\n-----END PGP PRIVATE KEY BLOCK-----"
        ),
    }
    return {name: make() for name, make in forms.items()}
