"""Resource files are read as kubectl reads them. The tables were made with kubectl; test_kubectl_reads.py holds them against it."""

import codecs
import json
from pathlib import Path
from typing import Any

import pytest
from test_schema import MINIMAL, at

from maft_operator.__main__ import main
from maft_operator.spec import dialect, files
from maft_operator.spec.go_yaml import Unreadable
from maft_operator.spec.schema import COMPARISON, KIND, BadSpec, checked

# What stands behind `v: `, and what kubectl makes of it.
# fmt: off
READ: list[tuple[str, Any]] = [
    ('2e-4', 0.0002), ('1e3', 1000), ('1024.0', 1024), ('12345e6', 12345000000), ('0o17', 15), ('017', 15), ('1:30', '1:30'),
    ('yes', True), ('on', True), ('y', True), ('0x1F', 31), ('0b11', 3), ('.5_0', 0.5), ('-0.0', 0),
    ('1e20', 100000000000000000000), ('18446744073709551615', 18446744073709552000), ('0b-1', -1), ('1e999', '1e999'),
    ('1_000.5', 1000.5), ('08', 8), ('0_8', 8), ('!!float 3', 3), ('!!binary aGk=', 'hi'), ('!!binary /w==', '�'),
    ('!!binary 8J+Y', '���'), ('!foo 12', '12'), ('! "12"', '12'), ('! 12', '12'), ('! yes', 'yes'), ('&a 1', 1), ('"\\\'"', "'"),
    ('2001-1-1', '2001-1-1'), ('!!timestamp 2001-01-01', '2001-01-01'), ('0x_1F', 31), ('1e+3', 1000), ('0X1f', 31),
    ('-0o17', -15), ('0B11', 3), ('{a: 1, b: 2}', {'a': 1, 'b': 2}), ('{1: 2, 1.5: 3, yes: 4}', {'1': 2, '1.5': 3, 'true': 4}),
    ('a\tb', 'a\tb'), ('\t5', 5), ('5\t', 5), ('5 #c', 5), ('5#c', '5#c'),
    ('{1e6: 1, 1234567.5: 2, 0.00001: 3, 16777217.0: 4, 100000.5: 3, 1e300: 3, .nan: 4, -1e300: 4, 0.1: 2,-0.0: 3,'
     ' 123456.0: 9, 999999.96: 3}',
     {'-.inf': 4, '-0': 3, '.inf': 3, '.nan': 4,
      '0.1': 2, '1.2345675e+06': 2, '1.6777216e+07': 4, '100000.5': 3, '123456': 9, '1e+06': 1, '1e-05': 3, '999999.94': 3}),
    ("'a''b'", "a'b"), ('{a:1}', {'a:1': None}), ('{"a":1}', {'a': 1}), ('[a:1]', ['a:1']), ('<<', '<<'), ('=', '='),
    ('!!set {a}', {'a': None}), ('!!null ~', None), ('!!bool yes', True), ('!!str 12', '12'), ('!!map 3', '3'),
    ('190:20:30.15', '190:20:30.15'), ('0o8', '0o8'), ('~a', '~a'), ('nUll', 'nUll'), ('NULL', None), ('Null', None),
    ('-.5', -0.5), ('+.5', 0.5), ('-1_0', -10), ('1__0', 10), ('1_', 1), ('0b', '0b'), ('0x', '0x'), ('+-1', '+-1'),
    ('.5.', '.5.'), ('5.e3', 5000), ('1e', '1e'), ('1E3', 1000), ('0e0', 0), ('00', 0), ('-00', 0), ('0.', 0),
    ('12345678901234567890123', 1.2345678901234568e+22), ('+18446744073709551615', 18446744073709552000),
    ('-9223372036854775808', -9223372036854775808), ('-9223372036854775809', -9223372036854776000),
    ('0xFFFFFFFFFFFFFFFF', 18446744073709552000), ('0x1FFFFFFFFFFFFFFFF', '0x1FFFFFFFFFFFFFFFF'),
    ('{9223372036854775807: 1}', {'9223372036854775807': 1}), ('{<<: {a: 1}, b: 2}', {'a': 1, 'b': 2}),
    ('{a: 5, <<: {a: 1}}', {'a': 1}), ('{<<: {a: 1}, a: 3}', {'a': 3}), ('{<<: [{a: 1},{a: 2,b: 3}]}', {'a': 1, 'b': 3}),
    ('{"<<": {a: 1}}', {'<<': {'a': 1}}), ('{!!merge <<: {a: 1}}', {'a': 1}),
    ('{x: &q {a: 1}, y: {<<: *q}}', {'true': {'a': 1}, 'x': {'a': 1}}), ('{x: &q 1.5, *q : 3}', {'1.5': 3, 'x': 1.5}),
    ('{x: &q yes, *q : 3}', {'true': 3, 'x': True}), ('[&a 1, &a 2, *a]', [1, 2, 2]), ('{? a : b}', {'a': 'b'}), ('[a,]', ['a']),
    ('{a, b: }', {'a': None, 'b': None}), ('|\n  x: y\n  z', 'x: y\nz\n'), ('|-\n  x\n\n', 'x'), ('> \n  a\n  b\n', 'a b\n'),
    ("'\n a\n b'", ' a b'), ('"a\\\n   b"', 'ab'), ('a\n b', 'a b'), (' [\n1,\n2]', [1, 2]), ('{\n"a": 1}', {'a': 1}),
    ('"\\x41\\u00e9\\U0001F600"', 'Aé😀'), ('"\\0"', '\x00'), ('a:b', 'a:b'), ('-1', -1), ('--1', '--1'), ('!', ''),
    ('!<x> 1', '1'), ('!<tag:yaml.org,2002:int> 1', 1), ('!<tag:yaml.org,2002:str> 1', '1'), ('~ ', None), ('null #x', None),
    ('0.1e1', 1), ('1.e', '1.e'), ('1e5_0', 1e+50), ('.', '.'), ('..', '..'), ('.e1', '.e1'), ('+', '+'), ('+.', '+.'),
    ('+.nan', '+.nan'), ('.Nan', '.Nan'), ('1e-999', 0), ('1.7976931348623159e308', '1.7976931348623159e308'),
    ('1.7976931348623157e308', 1.7976931348623157e+308), ('2e-400', 0), ('0x-1', '0x-1'), ('0o', '0o'), ('1_0:3', '1_0:3'),
    ('٣', '٣'), ('½', '½'), ('日本', '日本'), ('é', 'é'), ('\u2028', None), ('"a\u2028b"', 'a\u2028b'), ('\xa0', '\xa0'),
    ('a\xa0', 'a\xa0'), ('\ufeffa', '\ufeffa'), ('#', None), ('a #', 'a'), ('a  #b', 'a'), ('&a-b_1 x', 'x'),
    ('!!python/object:x 1', '1'), ('!!omap [a: 1]', [{'a': 1}]), ('!!seq 1', '1'), ('!!map [1]', [1]), ('!!str [1]', [1]),
    ('!!str {a: 1}', {'a': 1}), ('!!str', ''), ('!!null', None), ('!!float .5', 0.5), ('!!float 1e3', 1000), ('!!int 0x1', 1),
    ('!!int 18446744073709551615', 18446744073709552000), ('"yes"', 'yes'), ("'1'", '1'), ("'~'", '~'), ('""', ''), ("''", ''),
    ('-0', 0), ('+0', 0), ('-0x0', 0), ('0x0', 0), ('0.0', 0), ('-5e-324', -5e-324), ('1e-7', 1e-07), ('0.000001', 1e-06),
    ('123456789.123456789', 123456789.12345679), ('1e15', 1000000000000000), ('9007199254740993', 9007199254740993),
    ('9007199254740993.0', 9007199254740992), ('{a:}', {'a:': None}), ('|#c\n  x', 'x\n'), ('0b+1', 1), ('0b-', '0b-'),
    ('-0b1', -1), ('{a: &b [1, 2], c: *b}', {'a': [1, 2], 'c': [1, 2]}), ('"a\\tb"', 'a\tb'), ('"a\\\n\n b"', 'a\nb'),
    ('>-\n  a\n\n  b\n   c', 'a\nb\n c'), ('|2\n    x', '  x\n'), ('"\ttab"', '\ttab'), ("[yes, 'yes', 017]", [True, 'yes', 15]),
    ("{017: a, 1_0: b, .5: c, 2001-01-01: d, 'y': e}", {'0.5': 'c', '10': 'b', '15': 'a', '2001-01-01': 'd', 'y': 'e'}),
    ('0o_17', 15), ('1_e3', 1000), ('++1', '++1'), ('0e', '0e'), ('1d3', '1d3'), ('1f', '1f'), ('0x1.8p1', '0x1.8p1'),
    ('1,000', '1,000'), ('1 000', '1 000'), ('1e3 ', 1000), ('TRUE', True), ('tRUE', 'tRUE'), ('Off', False), ('N', False),
    ('No', False), ('nO', 'nO'), ("'on'", 'on'), ('!!str yes', 'yes'), ('!!str ~', '~'), ("!!bool 'on'", True),
    ('|2\n  \tx', '\tx\n'), ('|\n  x\n  \ty', 'x\n\ty\n'),
]
REFUSED = [
    '.inf', '!!int 3.0', '"\\ud83d"', '"\\/"', '!!timestamp 2001-13-01', '- 1', '{~: 1}', '{[1]: 2}', '@a', '`a', '%a',
    '!!null x', '-', '?', '{18446744073709551615: 1}', '{<<: ~}', '{<<: [~]}', '{x: &q [{a: 1}], y: {<<: *q}}', '&r [*r]', '*u',
    '[a, , b]', 'a:\n b', '"\\U00110000"', "!!int ''", '!!bool x', 'a: b', '- ', '[- 1]', '&', '*', '!!', '!e!x 1', '"a" b',
    "'a'b", '{a: b}}', ']', '-.inf', '+.inf', 'a\u2028b', 'a\x85b', 'a: ', '"\\ud83d\\ude00"', '&a.b x', '&é x',
    '{a: *x, b: &x 1}', '!!float', '!!float yes', '!!float 18446744073709551615', '!!float abc',
    '|\n    \tx', '|\n \tx', '|\n\tx', '>-\n\n   \tx', '|\n  x\n \t\n', '|\n  x\n\ty',
]
# fmt: on


def same(ours: Any, theirs: Any) -> bool:
    """Equal as JSON values: true is not 1, and numbers beyond 2^53 are as exact as a float."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    numbers = [isinstance(one, int | float) and not isinstance(one, bool) for one in (ours, theirs)]
    if all(numbers):
        return bool(ours == theirs or (abs(ours) > 2**53 and float(ours) == float(theirs)))
    return type(ours) is type(theirs) and bool(ours == theirs)


def refused(text: str) -> str:
    with pytest.raises(Unreadable) as caught:
        dialect.documents(text)
    assert "\n" not in str(caught.value)
    return f"{caught.value.line}: {caught.value}"


@pytest.mark.parametrize(("text", "value"), READ, ids=range(len(READ)))
def test_a_value_is_what_kubectl_makes_of_it(text: str, value: Any) -> None:
    [document] = dialect.documents(f"a: 1\nv: {text}\n")
    assert same(document["v"], value), document["v"]
    if isinstance(document["v"], float):
        assert not document["v"].is_integer() or abs(document["v"]) >= 2**63


@pytest.mark.parametrize("text", REFUSED)
def test_what_kubectl_refuses(text: str) -> None:
    assert refused(f"a: 1\nv: {text}\n")


# Whole files, and what kubectl makes of their documents; each has a kind, without which it reads none.
FILES: list[tuple[str, list[Any]]] = [
    ("kind: A\n---\nkind: B\n", [{"kind": "A"}, {"kind": "B"}]),
    ("---\nkind: A\n--- # more\n\n---\n---  \nkind: B\n...\nb: [", [{"kind": "A"}, {"kind": "B"}]),
    ("kind: A\r\nb:\r\n- yes\r\n---\r\nkind: |\r\n  x\r\n  y\r\n", [{"kind": "A", "b": [True]}, {"kind": "x\ny\n"}]),
    ("# nothing\n", []),
    ("", []),
    ("null\n---\n~\n---\nkind: A", [{"kind": "A"}]),
    ("kind: |\n  x\n---\nkind: 'b'\n", [{"kind": "x\n"}, {"kind": "b"}]),
    (
        '{"kind": "A", "a": 1024.0, "b": 1e3, "c": "\\ud83d\\ude00", "d": -0, "e": 12345678901234567890}',
        [{"kind": "A", "a": 1024, "b": 1000, "c": "😀", "d": 0, "e": 12345678901234567890.0}],
    ),
    ('\n  {"kind": "A"}\n{"kind": "B"} {"kind": "C"}\n', [{"kind": "A"}, {"kind": "B"}, {"kind": "C"}]),
    ('{"kind": "A"}\n---\nkind: B\na: 017\n', [{"kind": "A"}, {"kind": "B", "a": 15}]),
    ("{kind: A,\n b: 017}\n", [{"kind": "A", "b": 15}]),
    ('{"kind": "A", "a": NaN, "b": 017}', [{"kind": "A", "a": "NaN", "b": 15}]),
    ('{"kind":\t"A",\n\t"b": "\\/"}', [{"kind": "A", "b": "/"}]),
    (
        "kind: List\napiVersion: v1\nitems:\n- {kind: A, apiVersion: b}\n- {kind: B, apiVersion: b}\n",
        [{"kind": "A", "apiVersion": "b"}, {"kind": "B", "apiVersion": "b"}],
    ),
    ("kind: List\napiVersion: v1\nitems: null\n---\nkind: A\n", [{"kind": "A"}]),
    ("kind: A\na: &x {b: 1}\nc:\n  <<: *x\n  d: 2\n", [{"kind": "A", "a": {"b": 1}, "c": {"b": 1, "d": 2}}]),
    ("\ufeffkind: A\n---\n\ufeffkind: B\n", [{"kind": "A"}, {"kind": "B"}]),
]
# Files that kubectl refuses.
BROKEN = [
    "kind: A\n--- {kind: B}\n",
    "%YAML 1.1\n---\nkind: A\n",
    "kind: A\na: \0",
    "kind: A\na: \x1b[0m",
    'kind: A\na: "\\ud83d"',
    "- a",
    "words",
    '{"kind": "A", "a": 1e999}',
    "kind: A\na:\n\tb: 1",
    "kind: A\na: [1, 2\nb: 3",
    "kind: A\na: .inf",
    '{"kind": "A"}{"kind": "B"}\n---\nkind: C',
]


@pytest.mark.parametrize(("text", "documents"), FILES, ids=range(len(FILES)))
def test_whole_files(text: str, documents: list[Any]) -> None:
    assert same(dialect.documents(dialect.decoded(text.encode())), documents)


@pytest.mark.parametrize("text", BROKEN)
def test_broken_files(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(BadSpec, match=r"^[^\n]*/r\.yaml( line \d+)?: [^\n]*\Z"):
        files.load(tmp_path / "r.yaml")


LAUGHS = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [{','.join(9 * [f'*{a}'])}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: 2\na: 3\n", "3: not YAML: the key 'a' is there twice"),
        ("x: {1: a, '1': b}", "1: not YAML: the key '1' is there twice"),
        ("x: {yes: a, true: b}", "1: not YAML: the key 'true' is there twice"),
        ("a:\n  b: 1\n---\nc:\n  d: 1\n  d: 1\n", "6: not YAML: the key 'd' is there twice"),
        ('{"a": {"b": 1, "b": 2}}', "None: the key 'b' is there twice"),
        ("a: .inf", "1: not YAML: inf is no number of JSON"),
        ("a: 1\n--- {b: 1}\n", "2: '{b: 1}' behind ---, where kubectl takes nothing but a comment"),
        ("%YAML 1.1\n---\na: 1\n", "2: not YAML: expected '<document start>'"),
        ("a: \0", "1: not YAML: holds the character U+0000"),
        ("a: 1\nb: \x1b[0m", "2: not YAML: holds the character U+001B"),
        ('a: "\\ud83d"', "1: not YAML: holds half a character"),
        ('{"a": "\\ud83d"}', "1: holds half a character"),
        ('{"a": 1e999}', "None: 1e999... is too large a number"),
        ("a: " + "[" * 50_000, "1: not YAML: nested too deeply"),
        ("a:\n\tb: 1", "2: not YAML: found character '\\t' that cannot start any token"),
        ("a: [1, 2\nb: 3", "2: not YAML: "),
        (LAUGHS, "5: not YAML: more behind aliases than kubectl reads"),
    ],
)  # fmt: skip
def test_what_maft_refuses(text: str, says: str) -> None:
    assert refused(text).startswith(says)


BOMS = [("utf-8-sig", b""), ("utf-8", b""), ("utf-16-le", b"\xff\xfe"), ("utf-16-be", b"\xfe\xff")]


@pytest.mark.parametrize(("encoding", "bom"), BOMS)
def test_files_of_other_systems(tmp_path: Path, encoding: str, bom: bytes) -> None:
    body = json.dumps(at("debate.prompts", {"summarize": "Größe 😀 {answers}"}), ensure_ascii=False, indent=2)
    text = f"# größer\n---\n{body}\n".replace("\n", "\r\n")
    (tmp_path / "r.yaml").write_bytes(bom + text.encode(encoding))
    resource = checked(files.load(tmp_path / "r.yaml"))
    assert resource["spec"]["debate"]["prompts"]["summarize"] == "Größe 😀 {answers}"


# With its mark, of either order, and without.
UTF_32 = ["a: 1".encode("utf-32"), codecs.BOM_UTF32_BE + "a: 1".encode("utf-32-be"), *("a: 1".encode(f"utf-32-{e}e") for e in "lb")]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"a: \xe4", "is not UTF-8 text (byte 3)"),
        (b"\xef\xbb\xbfa: \xe4", "is not UTF-8 text (byte 6)"),
        (b"\xff\xfea", "is not UTF-16 text (byte 2)"),
        (b"\xfe\xff\xd8\x3d\x00a", "is not UTF-16 text (byte 2)"),
        ("a: 1".encode("utf-16-le"), " line 1: not YAML: holds the character U+0000"),
        *((data, ": is UTF-32 text, which kubectl does not read; save it as UTF-8") for data in UTF_32),
        (b"- a", "document 1 of 1 is no object with a kind"),
        (b"just words", "document 1 of 1 is no object with a kind"),
        (b"kind: MultiAgentFinetune\n---\na: 1", "document 2 of 2 is no object with a kind"),
        (b"", "holds 0 documents, 0 of them runs"),
        (b"kind: MultiAgentFinetune\n---\nkind: MultiAgentFinetune", "holds 2 documents, 2 of them runs"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "r.yaml").write_bytes(data)
    with pytest.raises(BadSpec) as caught:
        files.load(tmp_path / "r.yaml")
    assert str(caught.value).startswith(f"{tmp_path}/r.yaml")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("before", [b"", b"kind: Secret\n---\n"])
def test_a_resource_of_ours_says_who_takes_it(tmp_path: Path, before: bytes) -> None:
    """Not how many documents there are: the file is right, the command is not."""
    path = tmp_path / "r.yaml"
    path.write_bytes(before + b"kind: MultiAgentComparison")
    with pytest.raises(BadSpec, match=rf"^{path}: kind: MultiAgentComparison; `maft compare` runs it here"):
        files.load(path)
    path.write_bytes(before + b"kind: Society")
    with pytest.raises(BadSpec, match=rf"^{path}: kind: Society; .* `maft serve RUN`"):
        files.load(path, kinds=(KIND, COMPARISON))


def test_validate_takes_a_society(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.yaml").write_text("apiVersion: maft.dev/v1alpha1\nkind: Society\nmetadata: {name: s}\nspec: {run: r}")
    for more, code, says in ([], 0, "s.yaml: default/s, a society, is valid"), (["--set", "run=[]"], 2, "error: spec.run: "):
        with pytest.raises(SystemExit) as ended:
            main(["validate", str(tmp_path / "s.yaml"), *more])
        output = capsys.readouterr()
        assert (ended.value.code, says in output.out + output.err) == (code, True)


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        ([], False),
        (["maxConcurrentPerKey=2"], True),
        (["maxConcurrentPerKey=2", "apiKeysSecret.name=keys"], False),
        (["maxConcurrentPerKey=0"], False),
        (["maxConcurrentDebates=2"], False),
    ],
)
def test_validate_says_that_a_limit_for_each_key_limits_nobody_without_keys(
    settings: list[str], warned: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s.yaml").write_text("apiVersion: maft.dev/v1alpha1\nkind: Society\nmetadata: {name: s}\nspec: {run: r}")
    with pytest.raises(SystemExit) as ended:
        main(["validate", str(tmp_path / "s.yaml"), *(word for setting in settings for word in ("--set", setting))])
    lines = capsys.readouterr().out.splitlines()
    assert ended.value.code == 0 and "is valid" in lines[0]
    warning = "warning: spec.maxConcurrentPerKey: 2, and without API keys it limits nobody; maxConcurrentDebates does"
    assert lines[1:] == ([f"{warning} (spec.apiKeysSecret names keys)"] if warned else [])


# --- a run ---

HEAD = "apiVersion: maft.dev/v1alpha1\nkind: MultiAgentFinetune\nmetadata: {name: r}\nspec:\n  model: {source: org/model}\n"
# A field, how it is written, what it is then.
TAKEN: list[tuple[str, str, Any]] = [
    ("training.learningRate", "2e-4", 0.0002),
    ("task.train", "1e3", 1000),
    ("debate.maxTokens", "1024.0", 1024),
    ("debate.maxTokens", "1_024", 1024),
    ("debate.maxTokens", "0x1F", 31),
    ("debate.maxTokens", "0o17", 15),
    ("debate.maxTokens", "0b11111", 31),
    ("agents", "3.", 3),
    ("agents", "+3", 3),
    ("agents", "!!float 3", 3),
    ("seed", "017", 15),
    ("seed", "08", 8),
    ("seed", "-0.0", 0),
    ("debate.topP", ".5", 0.5),
    ("suspend", "yes", True),
    ("suspend", "n", False),
    ("workloadPriorityClass", "1:30", "1:30"),
    ("queueName", "2026-11-26", "2026-11-26"),
    ("queueName", "'12345e6'", "12345e6"),
    ("queueName", "!!str on", "on"),
    ("queueName", "1e999", "1e999"),
]
NOT_TAKEN = [
    ("model.revision", "12345e6", "spec.model.revision: is 12345000000; expected a string; put it in quotes"),
    ("model.revision", "0o17", "spec.model.revision: is 15; expected a string; put it in quotes"),
    ("model.revision", "017", "spec.model.revision: is 15; expected a string; put it in quotes"),
    ("model.revision", "1_000", "spec.model.revision: is 1000; expected a string; put it in quotes"),
    ("model.revision", "y", "spec.model.revision: is True; expected a string; put it in quotes"),
    ("debate.thinking", "off", "spec.debate.thinking: is False; expected one of Auto, Enabled, Disabled"),
    ("debate.thinking", "on", "spec.debate.thinking: is True; expected one of Auto, Enabled, Disabled"),
    ("debate.thinking", "'off'", "spec.debate.thinking: 'off'; expected one of Auto, Enabled, Disabled"),
    ("training.topology", "no", "spec.training.topology: is False; expected one of PerAgent, Shared"),
    ("debate.maxTokens", "1:30", "spec.debate.maxTokens: is the text '1:30'; expected an integer"),
    ("debate.maxTokens", "1024.5", "spec.debate.maxTokens: is 1024.5; expected an integer"),
    ("debate.maxTokens", "1e20", "spec.debate.maxTokens: is 1e+20; expected an integer"),
    ("debate.maxTokens", "1,000", "spec.debate.maxTokens: is the text '1,000'; expected an integer"),
    ("training.learningRate", "2e-4x", "spec.training.learningRate: is the text '2e-4x'; expected a number"),
    ("suspend", "'yes'", "spec.suspend: is the text 'yes'; expected a boolean"),
    ("suspend", "oN", "spec.suspend: is the text 'oN'; expected a boolean"),
]


def written(field: str, text: str) -> str:
    """A resource file with that field."""
    *sections, name = field.split(".")
    lines = [f"{'  ' * depth}{section}:" for depth, section in enumerate(sections, 1)]
    head = (
        HEAD
        if sections[:1] != ["model"]
        else HEAD.replace("{source: org/model}", "\n    source: org/model").replace("model: \n", "model:\n")
    )
    lines = lines if sections[:1] != ["model"] else []
    kind = [] if sections[:1] == ["task"] else ["  task: {kind: arithmetic}"]
    more = ["    kind: arithmetic"] if sections[:1] == ["task"] else []
    own = [f"{'  ' * (len(sections) + 1)}{name}: {text}"]
    return head + "\n".join([*lines, *own, *more, *kind] if lines or sections[:1] != ["model"] else [*own, *kind]) + "\n"


def loaded(tmp_path: Path, text: str, *settings: str) -> dict[str, Any]:
    (tmp_path / "run.yaml").write_text(text)
    return checked(files.load(tmp_path / "run.yaml", settings))


def field_of(value: Any, field: str) -> Any:
    for part in ("spec", *field.split(".")):
        value = value[part]
    return value


@pytest.mark.parametrize(("field", "text", "value"), TAKEN)
def test_fields_as_they_are_written(tmp_path: Path, field: str, text: str, value: Any) -> None:
    minimal = json.dumps(MINIMAL)
    for resource in (loaded(tmp_path, written(field, text)), loaded(tmp_path, minimal, f"{field}={text}")):
        assert (field_of(resource, field), type(field_of(resource, field))) == (value, type(value))


@pytest.mark.parametrize(("field", "text", "says"), NOT_TAKEN)
def test_fields_that_are_of_another_type_then(
    tmp_path: Path, field: str, text: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.yaml").write_text(written(field, text))
    (tmp_path / "minimal.yaml").write_text(json.dumps(MINIMAL))
    for arguments in (["run.yaml"], ["minimal.yaml", "--set", f"{field}={text}"]):
        with pytest.raises(SystemExit) as ended:
            main(["validate", str(tmp_path / arguments[0]), *arguments[1:]])
        assert ended.value.code == 2
        assert capsys.readouterr().err == f"error: {says}\n"


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("debate.prompts.hint={", "'{' is not a YAML value ("),
        ("debate.rounds=[1", "is not a YAML value"),
        ("inference.extraArgs=[--a=1] --b", "is not a YAML value"),  # and --b is not lost
        ("task.prompt={question} hi", "is not a YAML value"),
        ("debate={rounds: 3, rounds: 2}", "the key 'rounds' is there twice"),
        ("queueName=\udc80", "holds the character U+DC80"),
        ("debate.rounds=.inf", "inf is no number of JSON"),
        ("queueName=*x", "the anchor 'x' is not there"),
        ("debate.rounds=1\n---\n2", "--- is where a document begins or ends"),
        ("debate.rounds=---", "--- is where a document begins or ends"),
        ("debate.rounds=1\n...\n2", "... is where a document begins or ends"),
        ("debate.rounds=1\r---\r2", "--- is where a document begins or ends"),
    ],
)
def test_settings_that_are_no_value(tmp_path: Path, setting: str, says: str) -> None:
    with pytest.raises(BadSpec) as caught:
        loaded(tmp_path, json.dumps(MINIMAL), setting)
    assert str(caught.value).startswith(f"--set {' '.join(setting.split())}: ")
    assert "\n" not in str(caught.value) and str(caught.value).count("YAML") == 1
    assert says in str(caught.value) and str(caught.value).endswith("; quote it")


@pytest.mark.parametrize(
    ("section", "value", "says"),
    [
        ("labels", {"version": 1.5}, "metadata.labels.version: is 1.5; expected a string; put it in quotes"),
        ("labels", {"on": True}, "metadata.labels.on: is True; expected a string; put it in quotes"),
        ("labels", "a", "metadata.labels: is the text 'a'; expected an object"),
        ("annotations", ["a"], "metadata.annotations: is a list; expected an object"),
        ("annotations", {"a": {}}, "metadata.annotations.a: is an object; expected a string; put it in quotes"),
    ],
)
def test_labels_and_annotations_are_texts(section: str, value: Any, says: str) -> None:
    assert checked({**MINIMAL, "metadata": {"name": "r", section: {"a": "1", "b": None}}})
    assert checked({**MINIMAL, "metadata": {"name": "r", section: None}})
    with pytest.raises(BadSpec) as caught:
        checked({**MINIMAL, "metadata": {"name": "r", section: value}})
    assert str(caught.value) == says


@pytest.mark.parametrize(("value", "whole"), [(3.0, 3), (-0.0, 0), (1000.0, 1000)])
def test_a_whole_number_with_a_point_is_an_integer(value: float, whole: int) -> None:
    seed = checked(at("seed", value))["spec"]["seed"]
    assert (seed, type(seed)) == (whole, int)
    assert type(checked(at("debate.temperature", 1.0))["spec"]["debate"]["temperature"]) is float


@pytest.mark.parametrize("value", [2.5, 3.0000000001, 1e20, 2.0**53])
def test_other_numbers_with_a_point_are_none(value: float) -> None:
    with pytest.raises(BadSpec, match=r"^spec\.seed: .*expected (an integer|at most)"):
        checked(at("seed", value))


def test_folders_and_files_are_named_from_where_we_stand(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").mkdir()
    task = {"source": "./q.jsonl", "heldOutSource": "h.jsonl", "semantic": {"embedder": "../encoder"}}
    spec = {"model": {"source": "../m"}, "task": task, "evaluation": {"task": {"source": "./other.jsonl"}, "embedder": "./e"}}
    resource = {"kind": "MultiAgentFinetune", "spec": spec}
    (tmp_path / "examples" / "run.yaml").write_text(json.dumps(resource))
    named = files.load(tmp_path / "examples" / "run.yaml")["spec"]
    assert named["model"]["source"] == "./m"
    assert named["evaluation"] == {"task": {"source": "./examples/other.jsonl"}, "embedder": "./examples/e"}
    assert named["task"] == {
        "source": "./examples/q.jsonl",
        "heldOutSource": "./examples/h.jsonl",
        "semantic": {"embedder": "./encoder"},
    }
    resource["spec"] = {"model": {"source": "org/m"}, "task": {"source": "s3://b/q.jsonl", "semantic": {"embedder": "package"}}}
    (tmp_path / "run.yaml").write_text(json.dumps(resource))
    assert files.load(tmp_path / "run.yaml")["spec"] == resource["spec"]
