"""Takes out of text what looks like a secret, and says which names look like one's. Pure, and quick on long lines.

Logs in the bucket and the objects and logs of a bundle go through the same rules. A name decides about its value, read word by word
(`typeformApiKey` is typeform, api, key); values of a known shape, and users in URLs, go wherever they stand.
"""

import re
from collections.abc import Callable
from functools import lru_cache

REMOVED = "[removed]"


def _several(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Anywhere in a name, however it is written together; plurals of tokens are counted, tokenizers are none.
_STEM = re.compile(
    r"(?<!by)(?<!com)pass(?:word|wd|phrase)?s?(?![a-z])|secret|credential|token(?!s|iz)|signature|cookie|authorization|bearer"
    r"|(?:api|access|private|signing|encryption|account|session|auth|license)[-_. ]?key"
    r"|(?:api|access|auth|refresh|bearer|deploy)[-_. ]?tokens",
    re.IGNORECASE,
)
# The same of a variable of the environment, where a name stands for one value alone.
_STEM_OF_VARIABLE = re.compile(r"pass|secret|token|key|credential|auth", re.IGNORECASE)
_WORDS = frozenset({"pwd", "auth", "sig", "jwt", "psk", "passcode"})  # as a word of their own
_KEY = re.compile(r"([a-z]*?)keys?")
# What is called a key and opens nothing: `topologyKey`, `monkey`. A name that is `key` alone is that of an entry.
_NO_KEYS = _several(
    "topology public label annotation sort primary foreign partition group cache object row column field dict map index routing"
    " metric store config problem question run pod node state past first last next same unknown missing unexpected"
    " extra required allowed valid invalid duplicate max min num number total all of mon tur hot don whis joc"
)
# What such a name may end with where its value is no secret: where one is, what kind of one, how it went, how many.
_ABOUT = _several(
    "name names namespace file files path paths dir ref refs reference type kind reason mode method scheme provider algorithm"
    " version policy count counts length limit size budget rate seconds ttl expiry expires expiration error errors exception"
    " warning missing invalid unusable url uri endpoint enabled disabled required optional"
)
# Tokens of a tokenizer and of a page of results.
_OF_TEXT = re.compile(
    r"(?i)(?:^|[-_. ])(?:pad|eos|bos|unk|mask|sep|cls|special|stop|image|audio|video|begin|end|next|first|output|input"
    r"|prompt|per|max|min|num|reasoning|thinking|continue|continuation)[-_. ]?token$|token[-_. ]?ids?$"
)
_SPLIT = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@lru_cache(maxsize=4096)
def is_secret(name: str) -> bool:
    """Says whether what carries this name is a secret, as far as names tell."""
    words = _words(name)
    if not words or words[-1] in _ABOUT or _OF_TEXT.search(name):
        return False
    stem = _STEM.search(name) or _STEM.search(
        " ".join(words)
    )  # small letters that follow are of the same word: passwordHash is two
    return bool(stem) or not _WORDS.isdisjoint(words) or any(_is_key(words, place) for place in range(len(words)))


def is_secret_variable(name: str) -> bool:
    """Says it of a variable of the environment, more widely: `MASTERKEY2`, `KEYRING` and `TOKENS` are."""
    words = _words(name)
    return is_secret(name) or (bool(_STEM_OF_VARIABLE.search(name)) and not (words and words[-1] in _ABOUT))


def _words(name: str) -> list[str]:
    return [word.lower() for word in _SPLIT.findall(name) if not word.isdecimal()]


def _is_key(words: list[str], place: int) -> bool:
    """`OPENAI_KEY`, `SSHKEYS`, `openaiKeyValue` and `KEY_PEM` are; `key`, `topologyKey` and `key_value_heads` are not."""
    if not (match := _KEY.fullmatch(words[place])):
        return False
    before, after = match[1] or "".join(words[:place][-1:]), words[place + 1 :]
    if before in _NO_KEYS:
        return False
    return bool(before) if not after else after[-1] in ({"value", "data", "pem", "b", "base"} if before else {"pem", "b", "base"})


def _without_its_end(match: re.Match[str]) -> str:
    """Of a private key whose first lines are cut off: lines as they have, however many, above the one that ends it."""
    lines = match["body"].splitlines(keepends=True)
    kept = len(lines)
    while kept and len(lines[kept - 1].split()) == 1 and (kept == len(lines) or len(lines[kept - 1].strip()) >= _KEY_LINE):
        kept -= 1
    return "".join(lines[:kept]) + REMOVED


_KEY_LINE = 40  # characters of a line of a key at least, but for its last: PEM has 64, OpenSSH 70
_HOST = r"(?=@(?!sha\d+:))"  # what an image is pinned by is no host
_PATTERNS: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), REMOVED),
    (
        re.compile(r"(?<![A-Za-z0-9+/=\s])(?P<body>[A-Za-z0-9+/=\s]*+)-----END [A-Z ]{0,40}PRIVATE KEY-----"),
        _without_its_end,
    ),
    # Up to the last @: who writes a password into a URL seldom encodes it. With a password, slashes may be its own, also after @.
    (re.compile(rf"(?<=://)[^\s\"'<>/?#:\[]*:(?:(?!://)[^\s\"'<>])*{_HOST}"), REMOVED),
    (re.compile(rf"(?<=://)(?:(?!://)[^\s\"'<>/?#])*{_HOST}"), REMOVED),
    # A proxy is often given without a scheme: user:word@host.
    (re.compile(rf"(?i)(proxy(?:\\*[\"'])?\s*[=:]\s*(?:\\*[\"'])?)(?!\w+://)[^\s\"'<>\[]{{0,256}}{_HOST}"), rf"\1{REMOVED}"),
    (
        re.compile(rf"(?<![\w.%+@:-])[\w.%+-]{{1,64}}:(?!//)(?=[^\s\"'/<>\[]{{1,256}}@)[^\s\"'<>\[]{{1,256}}{_HOST}(?=@[\w\[])"),
        REMOVED,
    ),
    (
        re.compile(
            r"(?<![\w-])((?:-u|--user|--proxy-user)(?:[ =]|\\*[\"'],\s*\\*[\"']))(?!\d+:\d+\b)[^\s:\"']{1,64}:[^\s\"']{1,256}"
        ),
        rf"\1{REMOVED}",
    ),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"), rf"\1 {REMOVED}"),
    (re.compile(r"(?<![\w-])((?:[\w-]{0,40}?-)?)eyJ[\w-]{8,}+\.[\w-]{4,}+(?>(?:\.[\w-]*+)*)"), rf"\1{REMOVED}"),
    (
        re.compile(r"\b(?:hf_|gh[oprsu]_|github_pat_|glpat-|sk-|xox[abeprs]-|xapp-|nvapi-|npm_|dckr_pat_|pypi-|ya29\.)[\w-]{16,}"),
        REMOVED,
    ),
    (re.compile(r"\b(?:(?:AKIA|ASIA)[0-9A-Z]{16}|AIza[\w-]{35})\b"), REMOVED),
    (re.compile(r"(?<=hooks\.slack\.com/services/)[\w/]+"), REMOVED),
    # A variable of an object that stands in the text as JSON, however often its quotes are escaped, in either order.
    (
        re.compile(r"((?<!\\)\\*\"name\\*\":\s*\\*\"[^\"]*\",\s*\\*\"value\\*\":\s*)(\\*\")(?:(?!(?<!\\)\2).)+(\2?)"),
        rf"\1\2{REMOVED}\3",
    ),
    (re.compile(r"((?<!\\)\\*\"value\\*\":\s*)(\\*\")(?:(?!(?<!\\)\2).){1,9999}(\2,\s*\\*\"name\\*\":)"), rf"\1\2{REMOVED}\3"),
    (re.compile(r"(?i)(<[\w.-]{0,60}(?:password|secret|token|key)>)[^<]{1,9999}(?=</)"), rf"\1{REMOVED}"),
)
# A name and what says that its value follows: name=, "name": , name["x"] =, API key:, name%3D, --name VALUE, "--name", "VALUE".
_NAMED = re.compile(
    r"(?<![\w.-])(?P<name>(?P<flag>-)?(?>(?:(?:api|access|private|secret|auth|account|license|encryption|signing|session)[ ])?)"
    r"[\w.-]++)"
    r"(?:(?>(?:\\*[\"'])?)\]?+[ \t]*+(?:=>|:=|=|:(?!//)|%3[AD])\s*+|(?(flag)(?:[ \t]++|\\*[\"'],\s*+)(?!\\*[\"']?-)|(?!)))",
    re.IGNORECASE,
)
_END = r"[^\s&\"',;}\])\\]"  # what a value without quotes goes on with
_VALUE = re.compile(
    rf"(?P<none>(?:(?:null|true|false|none)|\$[({{]\w+[)}}])(?!{_END})|\[removed\]|\{{)"  # nothing, a reference, an object
    r"|(?P<quote>[bru]?(?P<mark>\\*[\"']))(?>(?:[^\n\"'\\]++|(?!(?<!\\)(?P=mark))[^\n])*)"
    r"|[\[(](?>(?:\s*[\[(])*)(?!\s*\{)(?>(?:\"[^\"\n]*+\"|'[^'\n]*+'|[^\])\n\"']++|[^\])\n])*)[\])]*+"  # several
    rf"|(?>(?:(?:token|basic|bearer|digest|apikey|key)[ \t]++)?)(?>(?:{_END}+|\\(?!\\{{0,8}}[\"']))+)",
    re.IGNORECASE,
)
# YAML's text in lines, `password: |`, also where it stands in a string of JSON, in which \n or \\n ends a line.
_BLOCK = re.compile(r"[|>][-+1-9]{0,2}[ \t]*+(?:#[^\n\\]*+)?(?=(?P<end>(?:\r?\n|(?P<signs>\\++)(?:r(?P=signs))?n)))")
_BEFORE = re.compile(r"[ \t]*(?:- +)*")  # in its line, a name of YAML
_HEADER = re.compile(r"authorization|cookie", re.IGNORECASE)  # goes on to the end of its line
_LINE = re.compile(r"(?>(?:[^\r\n\"'\\]++|(?<==)\"[^\"\r\n]*+\")+)")
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*=")  # of a shell or `env`: no separator ends its value
_WORD = re.compile(r"(?>(?:[^\s\"'\\]++|\\(?!\\{0,8}[\"']))+)")


def text(value: str) -> str:
    """Replaces what looks like a secret in a line of a log, a message or an argument."""
    for pattern, replacement in _PATTERNS:
        value = pattern.sub(replacement, value)
    pieces, done, look = [], 0, 0
    while match := _NAMED.search(value, look):
        start, end = _secret(value, match) if is_secret(_name(value, match)) else (match.end(), match.end())
        if end > start:
            pieces += [value[done:start], REMOVED]
            done = end
        look = end
    return "".join(pieces) + value[done:]


def _name(value: str, match: re.Match[str]) -> str:
    """A line break that is written \\n is no part of the name after it; of a very long one its end is enough."""
    escaped = value[match.start() - 1 : match.start()] == "\\" and match["name"][0] in "nrt"
    return match["name"][escaped:][-200:]


def _secret(value: str, match: re.Match[str]) -> tuple[int, int]:
    """From where to where the value of that name goes: an empty stretch where there is none to be removed."""
    begin = match.end()
    if block := match[0].rstrip().endswith(":") and _BLOCK.match(value, begin):
        return begin, _end_of_block(value, match.start(), block)
    folder = match["name"] in ("PWD", "OLDPWD") and value.startswith("/", begin)
    part = None if folder else _VALUE.match(value, begin)
    if not part or part["none"]:
        return begin, begin
    if part["quote"]:
        return part.end("quote"), part.end()
    whole = _LINE if _HEADER.search(match["name"]) else _WORD if _VARIABLE.fullmatch(match[0]) else None
    longer = whole.match(value, begin) if whole else None
    return begin, max(part.end(), longer.end() if longer else 0)


def _end_of_block(value: str, name: int, block: re.Match[str]) -> int:
    """Where the last line ends that stands deeper than the name."""
    above = re.split(r"\n|\\n", value[max(0, name - 200) : name])[-1]
    depth = len(above) - len(_BEFORE.sub("", above, count=1))
    line, look, end = _line(block["end"], len(block["signs"] or "")), block.end(), block.end()
    while (part := line.match(value, look)) and (len(part["space"]) > depth or not part["text"].strip()):
        look = part.end()
        end = look if part["text"].strip() else end
    return end


@lru_cache
def _line(end: str, signs: int) -> re.Pattern[str]:
    """A line below `password: |`. signs: before the n of a line's end; a quote after fewer of them ends the text."""
    if not signs:
        return re.compile(r"\r?\n(?P<space>[ \t]*+)(?P<text>[^\n]*+)")
    end = rf"(?<!\\){re.escape(end)}"
    return re.compile(rf"{end}(?P<space>[ \t]*+)(?P<text>(?>(?:(?!{end}|(?<!\\)\\{{0,{signs - 1}}}\")[^\n])*))")
