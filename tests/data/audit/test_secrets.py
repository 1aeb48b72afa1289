import pytest

from ftlab.data.audit import personal_data
from ftlab.data.audit.personal_data import scan

from .made_keys import keys

PASSWORDS = [
    "password = 'hunter2!x'", '{"password": "S3cr3t!99"}', "DB_PASSWORD=tr0ub4dor&3", "my password is Blue42Sky!",
    "postgres://admin:hunter22@db.corp.net:5432/x", "Passwort: geheim123!", "密码：abc12345",  # noqa: RUF001
    "пароль: qwerty99", 'os.environ["SECRET_KEY"] = "k9Lm2Np4Qr6St8Uv"', "pwd: kX9$mm21", 'apiKey = "k9Lm2Np4Qr6S"',
    "login jo / pass: abc123xy", "password='correct-horse-Battery'", "api_key=k9Lm2Np4Qr6St8Uv", "contraseña: gato1234",
]  # fmt: skip
NONE = [
    "password: ********", "YOUR_API_KEY", "api_key = 'YOUR_API_KEY'", "sk-...", "sk-xxxxxxxxxxxxxxxxxxxxxxxxxx",
    "AKIA" + "IOSFODNN7EXAMPLE", "password=password", "password = getpass.getpass()", "password: str = None",
    "secret = os.environ['X1']", "password={{ vault_1 }}", "password: <your password>", "PASSWORD=$PASSWORD1",
    "the secret is out", "secret: a story of 1984", "token = 'word2vec'", "the key is 123456", "if password != other1:",
    "sk-learn-some-thing-very-long-name", "http://user:password@host/", "https://host:8080/a@b", "password: changeme",
    "550e8400-e29b-41d4-a716-446655440000", "commit d670460b4b4aece5915caf5c68d12f560a9fe3e4", "I forgot my password.",
    "sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "-----BEGIN PRIVATE KEY-----\n...",
    "password: see page 12", "eyJust.a.word", "AKIAbc", "git@github.com:a/b.git", "the passport: none",
]  # fmt: skip


@pytest.mark.parametrize("name", keys(0))
def test_a_key_of_a_known_form_is_found_whole(name):
    for seed in range(20):
        key = keys(seed)[name]
        for text in (key, f"I use {key}, see?", f'x = "{key}"', f"这里{key}。", f"({key})"):
            masked = personal_data.without_private(text)
            assert "[secret]" in masked
            assert not any(part in masked for part in key.split() if len(part) >= 16 and any(map(str.isdigit, part)))


@pytest.mark.parametrize("text", PASSWORDS)
def test_a_password_is_found(text):
    assert [span.finding for span in scan(text)] == ["secrets"]


@pytest.mark.parametrize("text", NONE)
def test_what_stands_in_place_of_a_secret_is_none(text):
    assert scan(text) == []


def test_only_the_secret_is_masked():
    masked = personal_data.mask("secrets")
    assert masked('{"user": "jo", "password": "S3cr3t!99"}') == '{"user": "jo", "password": "[secret]"}'
    assert masked("postgres://admin:hunter22@db.corp.net/x") == "postgres://admin:[secret]@db.corp.net/x"
    assert masked("The password is Blue42Sky! Go in.") == "The password is [secret]! Go in."


@pytest.mark.parametrize(
    "text",
    [
        "password is SHA-256 hashed", "The password was MD5-hashed", "the passcode is 6-digits long",
        "Secret: Top-10 tips", "Password is 90s-style", "The passphrase is Correct-Horse", "secret: h4ppiness is ours",
        "my password is wrong123", "password: 8-20 characters", "password: min8chars", "Passwords: 1Password, LastPass",
        "The secret is web3 marketing", "Password - at least 8", "pass: 3rd try", "xoxo-lovers-12345678901",
        '"password": "Must have at least 8 characters"', "api key: see page12", "the max-token limit2",
        "-----BEGIN PRIVATE KEY----- and then the base64 of your key in lines of text -----END PRIVATE KEY-----",
    ],
)  # fmt: skip
def test_prose_about_passwords_is_no_password(text):
    assert scan(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "const password = user1?.password2", "password = hash_v2", "password = user1Password", 'secret = "v1beta1"',
        "secret: my-secret-v1", "api key: X-API-Key2", "export API_KEY=abc123...", "let secret = 0x1f2e3d",
        "token=word2vec_embedding_layer", "list(model, token=token)[0].commit_id", 'token = f"_{Var._id}"',
        "if password > min8length", "secret: ref/secret2", "token = getToken2()", "token: BertTokenizerFast3",
        "curl -u user:password https://h", "--token $TOKEN1", "--model-key my-model-v1", "https://host:8080/a@b",
        "oci://registry.io:5000/name@sha256", "https://medium.com/@user.name/a-story-1234",
        "fw_updateFirmwareVersion()",
    ],
)  # fmt: skip
def test_names_and_calls_in_code_are_no_passwords(text):
    assert scan(text) == []


@pytest.mark.parametrize(
    ("before", "value", "after"),
    [
        ("password: ", "Abc12345", "。谢谢"), ("密码：", "Abc12345", "，请保密"), ("密码是", "Abc12345", ""),  # noqa: RUF001
        ("パスワード: ", "Abc12345", "です"), ("パスワードは", "Abc12345", "です"),
        ("我的是password=", "hunter2xx", "。谢谢"),
        ("비밀번호는 ", "Abc12345", "입니다"), ("كلمة المرور: ", "Abc12345", ""),
    ],
)  # fmt: skip
def test_a_password_ends_where_a_script_without_spaces_goes_on(before, value, after):
    assert personal_data.mask("secrets")(before + value + after) == f"{before}[secret]{after}"


@pytest.mark.parametrize(
    "text",
    [
        'password = "{correct horse battery staple 9}"', 'The password is "{Abc 12345 xyz}".',
        'password = "{a\\"b1234567}"', "<password>{Abc12345}</password>", "**Password:** {Abc12345}",
        "passwords: {Abc12345}", "pw: {Abc12345}", "clave: {Abc12345}", "token={k9Lm2Np4Qr6St8Uv1Wx3Yz5Ab7Cd9Ef1}",
        "run --password {Zx81kk21} now", "PGPASSWORD={Zx81kk21} psql", "curl -u bob:{Zx81kk21} https://h.com",
        "sshpass -p {Zx81kk21} ssh", "mysql -u root -p{Zx81kk21} films", "mongodb+srv://bob:{Pa55@w0rd}@host",
        "postgres://bob:{pa/ss1}@db", "password={Zx81:kk<21}", "password: {Zx81kk21}<br />and",
        "dbPassword: {Zx81kk21}",
        "password={Zx81kk21}&user=jo", "user=jo;Pwd={Zx81kk21};Database=x", 'if password == "{Zx81kk21}":',
        '<add key="Password" value="{Zx81kk21}"/>', '\\"password\\": \\"{Zx81kk21}\\"', "password → {Zx81kk21}",
        "| password | {Zx81kk21} |", 'password "{Zx81kk21}"',
    ],
)  # fmt: skip
def test_the_whole_password_is_masked_in_every_notation(text):
    start, rest = text.split("{")
    value, end = rest.split("}")
    assert personal_data.mask("secrets")(start + value + end) == f"{start}[secret]{end}"
