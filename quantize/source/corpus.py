"""Texts on which two tokenizers must agree: scripts, emoji, code, digits, blanks, and special tokens inside text.

Each list is here because some tokenizer was once converted wrongly in just that place: the pre-tokenizer's
rule for digits, contractions or blanks, the normalizer, bytes outside the vocabulary, added tokens. What stands here is
then put together anew by a seeded generator.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from random import Random
from unicodedata import ucd_3_2_0

ENGLISH = (
    "Hello, world!", "hello world", "HELLO WORLD", "Hello  World", " Hello", "Hello ",
    "turn off the kitchen light", "The quick brown fox jumps over the lazy dog.",
    "I'm, you're, he's, we've, they'll, I'd, don't, CAN'T, IT'S, we'Ve",
    "it’s a ‘quoted’ “text” — with dashes – and … dots", "e-mail: jane.doe+test@example.org",
    "https://example.org/a?b=c&d=%20#e", "U.S.A. vs. the U.K., e.g. at 5 p.m.", "A", "a", "", "?!?!?!", "...",
    "----------", "==========", "((((()))))", "snake_case_name", "camelCaseName", "SCREAMING_SNAKE",
    "kebab-case-name", "<b>bold</b> &amp; <i>it</i>", "[link](target) **bold** _it_ `code`",
    "antidisestablishmentarianism", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "abcabcabcabcabcabcabc",
    "What?Why?How?", "one,two;three:four", "Dr. Smith paid $3.50 (about €3.20) on 2024-01-31 at 07:45.",
    "naïve café façade jalapeño", "æøå ÆØÅ ßẞ ðþ łŁ",
)
SCRIPTS = (
    "Grüße aus Köln, schöne Straße", "Où est la bibliothèque ?", "¿Dónde está la biblioteca? ¡Aquí!",
    "Ação, coração, não", "Příliš žluťoučký kůň úpěl ďábelské ódy", "Zażółć gęślą jaźń",
    "Árvíztűrő tükörfúrógép", "İstanbul'da ışık ılık", "Привет, мир! Съешь ещё этих мягких французских булок",
    "Γειά σου Κόσμε, καλημέρα", "שלום עולם", "مرحبا بالعالم، كيف الحال؟", "سلام دنیا ۱۲۳", "नमस्ते दुनिया",
    "হ্যালো বিশ্ব", "வணக்கம் உலகம்", "สวัสดีชาวโลก", "ສະບາຍດີ", "မင်္ဂလာပါ", "សួស្តី", "გამარჯობა მსოფლიო",
    "Բարեւ աշխարհ", "ሰላም ልዑል", "你好，世界！今天天气怎么样？", "繁體中文與標點「」『』",
    "こんにちは世界、カタカナとひらがな", "ｶﾀｶﾅ ＦＵＬＬ　ＷＩＤＴＨ",
    "안녕하세요 세계", "Xin chào thế giới, tiếng Việt", "ʻŌlelo Hawaiʻi", "Tiếng Việt in NFD: ê\u0301",
    "e\u0301 é ñ n\u0303", "ﬁ ﬂ ﬃ ligatures", "ⅷ ½ ² ₂ ① Ⅳ", "αβγ ∑∫√∞ ≤ ≥ ≠ ≈ → ⇒", "Ω Ω K K Å Å", "ǅ ǆ Ǆ",
    "ſ s S", "\u202bשלום\u202c left \u200e right",
    "soft\u00adhyphen zero\u200bwidth\u200cjoin\u200d er\ufeffbom", "אבגד123abc", "中文english混合123テスト",
    "Ελλάδα2024год", "ⴰⵣⵓⵍ", "𐍈𐌰 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟏𝟐𝟑", "👋🌍", "𠜎𠜱𡿺",
)
EMOJI = (
    "🙂", "🙂🙂🙂", "👍🏽 👍", "👨‍👩‍👧‍👦 family", "🏳️‍🌈 🇩🇪🇫🇷", "❤️ ❤", "1️⃣ #️⃣", "emoji🙂inside", "🙂 space 🙂",
    "☃ ☂ ★ ✓ ✗", "🤷🏻‍♀️🤷", "🧑‍💻 codes", "🎉!!!🎉", "a🙂b🙃c", "😂 lol",
)
DIGITS = (
    "0", "7", "12", "123", "1234", "12345", "1234567890", "3.14159", "1,000,000", "-42", "+49 30 123456",
    "0x1F", "1e-5", "007", "v1.2.3", "2024-12-31T23:59:59Z", "50%", "1/2", "a1b2c3", "x1", "1x", "12 345",
    "12  345", "10:30", "#123", "$19.99", "100km", "3rd 21st", "٠١٢٣٤٥", "१२३४", "一二三",
    "1 22 333 4444 55555 666666", "00000000", "1.1.1.1", "99bottles", "abc123def456", "192.168.0.1:8080",
)
BLANKS = (
    " ", "  ", "   ", "    ", "        ", "                ", "\t", "\t\t", "\n", "\n\n", "\n\n\n", "\r\n",
    "\r\n\r\n", " \n", "\n ", " \n \n ", "\t \t", "a b", "a  b", "a   b", "a    b", "a\tb", "a\t\tb", "a\nb",
    "a\n\nb", "a \nb", "a\n b", "a\r\nb", " a", "  a", "   a", "a ", "a  ", "a\n", "\na", "\ta", "a\t",
    "  a  b  ", "\u00a0", "a\u00a0b", "\u3000全角\u3000", "a\u2003b\u2009c", "\x0b\x0c",
    "line\u2028separator\u2029end", "trailing   \nblanks  \n", "  - item\n    - nested\n\n  - item",
    "end.  Two blanks.  After.", "word \t\n mixed", "  1", " 1", "1 ", "  !", " !", "! ", "\n1", "\n!", "a .",
    " ,", "      x", "       x", "\n\n\n\n\n\n\n\nx", "\x00", "a\x00b", "\x01\x02\x7f", "\x1b[31mred\x1b[0m",
)
CODE = (
    "def add(a, b):\n    return a + b\n", "for i in range(10):\n\tprint(i ** 2)  # square\n",
    "if (x == 1) { return x++; } else { x -= 2; }",
    "#include <stdio.h>\nint main(void) { printf(\"%d\\n\", 42); return 0; }",
    "SELECT * FROM users WHERE id = 42 AND name LIKE '%a%';",
    '{"action": "turn_on", "device": "light", "room": "kitchen", "minutes": 10}',
    '{"a":[1,2,{"b":null}],"c":true}', "[{'k': \"v\"}, ...]",
    "<html>\n  <body class=\"a b\">text</body>\n</html>", "key: value\nlist:\n  - a\n  - b\n",
    "x = [i ** 2 for i in range(10) if i % 2 == 0]", "\\alpha \\frac{a}{b} $x_1^2$",
    "C:\\Users\\name\\file.txt", "/usr/local/bin/python3 -m pip install x==1.0", "git commit -m 'fix: a bug'",
    "a && b || !c", "a->b::c.d", "lambda x: x", "@decorator\nclass A(B):\n    pass", "\"\"\"docstring\"\"\"",
    "'''", "```json\n{}\n```", "// comment\n/* block */", "# heading\n\n- list\n",
    "| a | b |\n|---|---|\n| 1 | 2 |", "fn main() -> Result<(), Box<dyn Error>> { Ok(()) }",
    "let x: &'static str = \"s\";", "0b1010 0o17 1_000_000", "a?.b ?? c", "=>", "!=", "===", "<<<>>>", ":)",
    "^_^", "~/.bashrc", "%s %d %5.2f", "\\n\\t\\\\", "A=1;B=2;C=3", "import numpy as np",
    "\tindent\n\t\tmore\n\t\t\tmost", "        eight\n    four\n", "regex: ^(a|b)*?[^\\d\\s]{2,}$",
)
TASKS = (
    "set the alarm for 6:45 tomorrow", "play some jazz in the living room, please",
    "What's the weather in São Paulo?", "remind me to call mum at half past seven",
    "I still haven't received my new card. When will it arrive?", "Why was I charged a fee of £1.50?",
    "Once upon a time, there was a little girl named Lily.", "book a table for 4 at Joe's on Friday 13th",
    "My order #98765-A hasn't shipped yet!!", "Dear Sir/Madam,\n\nI would like to cancel.\n\nRegards,\nA. B.",
    "user: hi\nassistant: hello\nuser: bye", "### Instruction:\nSummarise.\n\n### Response:\n",
    "Q: 2+2=?\nA: 4", "turn the lights off in ten minutes and the heating to twenty-one degrees",
)
TEXTS = (*ENGLISH, *SCRIPTS, *EMOJI, *DIGITS, *BLANKS, *CODE, *TASKS)
"""Written by hand: also what a model is asked about when there are no rows."""

RANGES = (
    "az", "AZ", "àÿ", "Āſ", "αω", "ая", "АЯ", "ԱՖ", "את", "ءي", "कह", "কহ", "அஹ", "กฮ", "ກຮ", "ကအ", "កអ", "აჰ", "ሀፐ",
    "ぁん", "ァヶ", "一龥", "가힣", "ᎠᏴ", "\u05b0\u05c4", "\u064b\u0652", "\u0300\u036f", "ा्", "ัฺ", "‐⁞", "₠₱", "℀ℸ",
    "←⇿", "∀⋿", "①⓿", "─▟", "☀☓", "！～", "𐌰𐍊", "𝐀𝟿", "😀🙏", "🚀🚼", "🤐🤞")
"""First and last character of what words are made of; those that Unicode 3.2 lacks are left out, but for emoji."""
JOINERS = ("", " ", "  ", "    ", "\n", "\n\n", "\r\n", "\t", " \n ", "-", "'", "’", ", ", ".", "/", "_",
           "\u00a0", "\u200d", "\ufe0f")
SEED = 7
MIXED, WORDS, BROKEN = 900, 600, 300


def texts(special_tokens: Iterable[str] = ()) -> list[str]:
    """The corpus: more than 2,000 distinct texts, always the same, and every special token alone, inside words, between
    blanks and twice in a row."""
    found = [*_plain()]
    for token in sorted(special_tokens)[:32]:
        found += [token, f"a{token}b", f"a {token} b", f"{token}{token}", f" {token}", f"{token}\n1", token[:-1],
                  f"{token} x"]
    return list(dict.fromkeys(found))


@cache
def _plain() -> tuple[str, ...]:
    """The corpus without special tokens."""
    random = Random(SEED)
    return (*TEXTS, *_runs(), *_mixed(random), *_words(random), *_broken(random))


def _runs() -> Iterator[str]:
    """Runs of every length of blanks, digits and signs, beside words and alone."""
    for length in (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 17, 24, 31, 33):
        for sign in " \t\n0a.-":
            run = sign * length
            yield from (run, f"x{run}y", f"x {run}", f"{run}1")


def _mixed(random: Random) -> Iterator[str]:
    """Parts of the texts above in new neighbourhoods."""
    parts = [part for text in TEXTS for part in (text, *text.split(" ")) if 0 < len(part) <= 24]
    for _ in range(MIXED):
        count = random.randrange(2, 6)
        yield random.choice(JOINERS).join(random.choice(parts) + random.choice(JOINERS) for _ in range(count))


def _words(random: Random) -> Iterator[str]:
    """Words of one range of characters each, two ranges a text."""
    for index in range(WORDS):
        words = []
        for borders in (RANGES[index % len(RANGES)], random.choice(RANGES)):
            drawn = (chr(random.randrange(ord(borders[0]), ord(borders[1]) + 1)) for _ in range(random.randrange(1, 9)))
            words.append("".join(sign for sign in drawn if sign > "\U0001f000" or ucd_3_2_0.category(sign) != "Cn"))
        yield random.choice(JOINERS).join(words)


def _broken(random: Random) -> Iterator[str]:
    """Bytes that are no UTF-8, made into text in the usual ways: replaced, or taken for another encoding."""
    for index in range(BROKEN):
        data = random.choice(SCRIPTS + EMOJI).encode()
        start = random.randrange(len(data))
        part = data[start:start + random.randrange(1, 12)]
        yield part.decode("utf-8", "replace") if index % 3 else part.decode("latin-1")
