import pytest

from ftlab.data.audit import audit, identifiers, personal_data
from ftlab.data.audit.personal_data import KINDS, scan

from .made_keys import keys
from .planted import changed, reviews

KEYS = keys(0)

TRUE = {
    "email_addresses": [
        "jo@mail.de", "write to jo.doe+films@mail.x-y.co.uk.", "<jo@mail.org>", "JO@MAIL.COM", "jörg@exämple.de",
        "mailto:jo_doe@mail.com", "邮箱jo@mail.cn谢谢",
    ],
    "phone_numbers": [
        "+44 20 7946 0958", "+1 800 555 4199", "+49 (0)30 123456", "(212) 555-2187", "212-555-2187", "212.555.2187",
        "1-212-555-2187", "020 7946 0958", "0800 1234567", "030/901820", "call (020) 7946 0958.", "01 42 68 53 00",
        "06 12 34 56 78", "090-1234-5678", "138 0013 8000", "+91 98765 43210", "phone 98765 43210", "电话13800138000",
        "8 (495) 123-45-67", "(11) 98765-4321", "0412 345 678", "tel: 612 345 678", "+86 138 0013 8000", "02-123-4567",
        "010-1234-5678", "мой телефон 8 905 123-45-67", "+81-3-1234-5678", "0043 1 58858 0", "+254 712 345678",
        "+34 912 345 678", "+5511987654321", "tel 22 12 34 56",
        "(212-555-2187)", "(8 (495) 123-45-67)", "(+49 30 901820)", "هاتف 0501234567",
    ],
    "card_numbers": [
        "4111 1111 1111 1111", "4111111111111111", "5555-5555-5555-4444", "378282246310005", "3782 822463 10005",
        "card 6011111111111117.", "5105 1051 0510 5100",
    ],
    "bank_accounts": [
        "DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432", "FR14 2004 1010 0505 0001 3M02 606 EUR",
        "IBAN: NL91ABNA0417164300.",
    ],
    "national_ids": [
        "SSN 123-45-6789", "078-05-1121", "tax id 12/345/67890", "Steuer-ID: 86095742719", "passport number C01X00T47",
        "Passport No: 123456789", "12345678Z", "CPF 390.533.447-05", "RSSMRA85T10A562S", "1 85 05 78 006 084 91",
        "85.07.30-033.28", "131052-308T", "11010519491231002X", "AB 12 34 56 C", "Reisepass C4VTFJ2M9",
        "PESEL 44051401458", "Aadhaar 2341 2341 2346", "паспорт 4509 123456", "护照号码 E12345678", "BSN: 111222333",
        "tax number 123456789", "driver's license D1234567", "numéro de sécurité sociale 185057800608491",
    ],
    "ip_addresses": [
        "81.2.69.142:8080", "from 91.198.174.192 port 22", "2a00:1450:4001:81c::200e", "client 5.9.12.3 asked",
        "[203.0.114.77]",
    ],
    "documentation_addresses": ["jo@example.com", "a@b.test", "212-555-0187", "(212) 555-0100", "jo@mail.example.org"],
}  # fmt: skip
NONE = [
    "@handle", "a@b", "5 @ 3.50", "x@y.z", "jo at example.com", "jo@localhost", "pkg@1.2.3", "@", "root@host",
    "1999-2000", "from 1999 to 2000", "(1999) 2000-2001", "1999-2000 2001-2002", "$1,000,000.00", "£100 000 0000",
    "1/2", "1/2 3/4 5/6", "12.50", "2001-09-11", "01/02/2003", "11.09.2001", "10:30-11:45", "3.14159265358979",
    "2-1, 3-2 and 1-0", "192.168.100.1", "555-1234", "ISBN 978-0-306-40615-7", "ISBN 0-306-40615-2",
    "ISBN 9780306406157", "978-0306406157", "978 0 306 40615 7", "1,000,000 and 2,000,000", "9 780306 406157",
    "100 000 000", "rated 10 of 10, 100 %", "+1 234 5678", "+1234567890123456789", "4111 1111 1111 1112",
    "1234567890123456", "4111", "10 000 000 000 000", "order 1234567890", "order no. 2023-0012345", "1701234567890",
    "550e8400-e29b-41d4-a716-446655440000", "12345678-1234-5678-1234-567812345678", "2001-09-11 10:30:11",
    "359fb98a7c1d2e3f4a5b6c7d8e9f0a1b2c3d4e5f", "192.0.2.1", "10.0.0.1", "127.0.0.1", "version 1.2.3.4", "1.2.3.4",
    "numpy==1.26.4.1", "Chrome/120.0.6099.130", "section 8.2.4.44", "1.0.0.127.in-addr.arpa", "2001:db8::1", "::1",
    "std::vector<int>", "00:1a:2b:3c:4d:5e", "passport expired in 2019", "passport since 2001 2002", "RFC 2616 14.35",
    "the tax in 2019 was 12345 dollars", "DE89 3704 0044 0532 0130 01", "GB82 is a code", "tin 400 g, 800 g, 1200 g",
    "EUR 12.345.678,90", "call 911 or 112", "call back 2023-11-29",
    "a phone from 1999-2000", "id=123456789012345678", "GET /a/b?x=1234567890 HTTP/1.1",
    "2023-11-29T12:34:56.789012Z", "rated 8.5/10 10/10 9/10", "tracking 1Z999AA10123456784", "12345678A", "PIN 1234",
    "Decimal('+35236450.6')", "git@github.com:a/b.git", "matrix 1 2 3 4 5 6 7 8 9", "in 1990 (the 2nd of 12 parts)",
]  # fmt: skip


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in TRUE.items() for text in texts])
def test_personal_data_are_found_once(kind, text):
    assert [span.finding for span in scan(text)] == [kind]


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in TRUE.items() for text in texts])
def test_nothing_is_left_after_masking(kind, text):
    masked = personal_data.mask(kind)(text)
    assert KINDS[kind][1] in masked
    assert scan(masked) == []


@pytest.mark.parametrize("text", NONE)
def test_text_that_only_looks_like_personal_data_is_not_found(text):
    assert scan(text) == []
    assert personal_data.without_private(text) == text


def test_a_mask_leaves_the_other_kinds():
    text = "ask jo@mail.de or 212-555-2187; 4111 1111 1111 1111, not 4111 1111 1111 1112"
    assert personal_data.mask("card_numbers")(text) == text.replace("4111 1111 1111 1111", "[card]")
    assert personal_data.mask("email_addresses")(text) == text.replace("jo@mail.de", "[email]")


def test_one_wrong_digit_is_never_a_card_number():
    number = "4111111111111111"
    for place, digit in enumerate(number):
        for other in set("0123456789") - {digit}:
            assert not identifiers.luhn(number[:place] + other + number[place + 1 :])


def test_the_shipped_reviews_have_no_personal_data():
    assert [text for text in reviews(200)["text"] if scan(text)] == []


def test_a_finding_says_what_is_in_each_row_and_shows_none_of_it():
    frame = changed(reviews(), "text", {5: "passport C01X00T47, SSN 078-05-1121", 9: "ask jo@mail.de"})
    report = audit(frame)
    assert report["national_ids"].evidence.values.tolist() == [
        ["r5", 'number after "passport", US social security number']
    ]
    assert report["email_addresses"].evidence.values.tolist() == [["r9", "j…de"]]


def test_personal_data_in_later_splits_are_found_and_only_those_of_training_rows_repaired():
    given = changed(reviews(5), "text", {2: "ask jo@mail.de"})
    given = given.assign(id="t" + given["id"])
    report = audit(reviews(), test=given)
    found = report["email_addresses"]
    assert found.evidence.values.tolist() == [["tr2", "j…de", "test"]]
    assert "1 of them in test" in found.what
    assert "email_addresses" not in report.repairable
    both = audit(changed(reviews(), "text", {5: "or jo@mail.de"}), test=given)
    assert both["email_addresses"].rows == ("r5", "tr2")
    assert both.repair("email_addresses").log["id"].tolist() == ["r5"]


def test_a_label_with_personal_data_is_found():
    labels = {4: "jo.doe@mail.de", 5: "jo.doe@mail.de", 6: "jo.doe@mail.de"}
    found = audit(changed(reviews(), "label", labels))["email_addresses"]
    assert found.evidence.values.tolist() == [[f"r{row}", "j…de (label)"] for row in labels]


@pytest.mark.parametrize("hidden", ["\u200b", "\u00ad", "\u2060", "\u200d", "\ufe0f", "\U000e0041"])
def test_an_invisible_character_hides_nothing(hidden):
    for kind, texts in TRUE.items():
        split = texts[0][:-3] + hidden + texts[0][-3:]
        assert [span.finding for span in scan(f"\u200e{split}")] == [kind]
        assert scan(personal_data.mask(kind)(split)) == []


BREAKS = ["\n", "\r\n", "\n> ", "=\r\n", "\\\n", "\n  ", "\x07", "\u2028"]


@pytest.mark.parametrize("broken", BREAKS)
def test_the_end_of_a_line_hides_no_key(broken):
    for name in ("GitHub", "OpenAI, of a project", "Google", "JSON web token"):
        key = KEYS[name]
        for at in (len(key) // 3, len(key) // 2, 2 * len(key) // 3):
            text = f"so {key[:at]}{broken}{key[at:]} is mine"
            assert personal_data.without_private(text) == "so [secret] is mine"


def test_a_quoted_private_key_is_found():
    quoted = KEYS["private key"].replace("\n", "\n> ")
    assert personal_data.without_private(f"> {quoted}\nas you said") == "> [secret]\nas you said"


@pytest.mark.parametrize("text", ["{}\nThanks", "{}\nThen more", "{}\n{}", "{}\n\nx7f3", "{}\nis 2024"])
def test_a_line_after_a_key_is_none_of_it(text):
    key = KEYS["GitHub"]
    assert personal_data.without_private(text.format(key, key)) == text.format("[secret]", "[secret]")


@pytest.mark.parametrize(
    "text", ["sk-learn\npipelinesForAll2 now", "the hf_\nmodels", "SK\nand", "a task-\nlist", "1\n2\n3\n4\n5\n6\n7\n8"]
)
def test_ordinary_lines_make_no_key(text):
    assert scan(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "Vom 03.04.2021 05.06.2021 war zu", "01.02.2023 - 03.04.2023", "03.04.2021-05.06.2021", "3. 4. 2021 5. 6. 2021",
        "03.04.2021 05.06.2021 07.08.2022", "01/02/2023 03/04/2023 05/06/2023", "01.02.23 - 03.04.23",
    ],
)  # fmt: skip
def test_dates_in_a_row_are_no_phone_number(text):
    assert scan(text) == []


def test_a_phone_number_beside_a_date_is_found_alone():
    assert personal_data.without_private("03.04.2021 030 901820") == "03.04.2021 [phone]"
    assert personal_data.without_private("030 901820 03.04.2021") == "[phone] 03.04.2021"


@pytest.mark.parametrize(
    "text",
    [
        "01 02 03 04 05", "Scores: 05 10 15 20 25 30", "lottery 03 14 25 36 47", "03 14 25 36 47", "RGB 012 034 056",
        "Temperature 020 021 022 023", "Tel Aviv 1948 1967 1973", "mobile games 2010 2012 2014", "300-400-5000 m",
        "my mobile has 4000 1234 mAh", "Phone support 2019-2020 1234", "mobile 1920 1080 60", "0800 1500 2200 hours",
        "Open 0900 - 1700 1000-1400", "order 020-1234567-1234567", "+100 000 000 dollars", "Boston, MA 02110-1301 USA",
        "212-555-2187 views",
    ],
)  # fmt: skip
def test_lists_years_times_and_sizes_are_no_phone_numbers(text):
    assert scan(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "call me at 4158675309", "my number, phone: 4158675309", "Tel.: 030-90 18 20", "06.12.34.56.78",
        "212-555-2187 point", "01 42 68 53 00", "to order: 020 7946 0958", "the order +44 20 7946 0958",
    ],
)  # fmt: skip
def test_a_phone_number_after_its_word_or_in_its_countrys_form_stays_one(text):
    assert [span.finding for span in scan(text)] == ["phone_numbers"]


@pytest.mark.parametrize(
    "text",
    [
        "BE68 5390 0754 7034", "be68 5390 0754 7034", "iban/DE89370400440532013000", "DE89 3704 0044\n0532 0130 00",
        "DE89\xa03704\xa00044\xa00532\xa00130\xa000", "DE 89 370 400 440 532 013 000", "NO93 8601 1117 947",
        "x_DE89370400440532013000", "MT84 MALT 0110 0001 2345 MTLC AST0 01S",
    ],
)  # fmt: skip
def test_an_iban_is_found_whole_however_it_is_written(text):
    for said in (text, f"to {text} and then we go on", f"ab12 3456 7890 1234 {text}"):
        masked = personal_data.mask("bank_accounts")(said)
        assert masked.count("[iban]") == 1
        assert sum(map(str.isdigit, masked)) == (14 if said.startswith("ab12") else 0)


@pytest.mark.parametrize(
    "text",
    [
        "card=4012888888881881", "card#4012888888881881", "4242\xa04242\xa04242\xa04242", "4012.8888.8888.1881",
        "4012888888881881/12", "6759649826438453", "card_number: 4012888888881881",
    ],
)  # fmt: skip
def test_a_card_number_is_found_however_it_is_written(text):
    assert [span.finding for span in scan(text)] == ["card_numbers"]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("NHS: 9434765870", "NHS: [id number]"), ("IdNr. 36574261809", "IdNr. [id number]"),
        ("DNI 54.362.315-K", "DNI [id number]"), ("54.362.315-K", "[id number]"),
        ("RUT 12.531.909-2", "RUT [id number]"),
    ],
)  # fmt: skip
def test_an_id_number_is_masked_with_its_check_letter(text, masked):
    assert personal_data.without_private(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "passport 2024-05-06", "passport 06.05.2024", "nif 100000 files", "RG 123456", "RUT 500000", "NIP 2000 3000",
        "CPR 120 30 2", "social security 2023 50000", "passport 300 000 times", "NHS: 1234567890",
    ],
)  # fmt: skip
def test_dates_and_counts_after_a_word_such_as_passport_are_no_id_numbers(text):
    assert [span for span in scan(text) if span.finding == "national_ids"] == []
