"""Templates and command lines of any shape: an answer or an error in words, never a trace and never a flood."""

import json

from hypothesis import example, given, settings
from hypothesis import strategies as st

from minidocker.cli import values
from minidocker.cli.main import GLOBAL_OPTIONS
from minidocker.cli.options import UsageError, parse
from minidocker.cli.template import Record, Template, TemplateError
from minidocker.cli.template_functions import FUNCTIONS

PIECES = st.sampled_from([
    "{{", "}}", "{{-", "-}}", ".", ".Name", ".List", ".Map", ".Number", ".None", "$", "$x", ":=", "=", "|", "(", ")",
    ",", "range", "if", "else", "end", "with", "true", "nil", '"text"', '"a\\x"', '"\\n"', "`raw`", "1", "-3",
    "0x", "1.5e",
    "99999999999999999999", '"%5s"', '"%d"', '"%999999999d"', '"%v%v"', '"%-"', ".Name.X", ".Map.key", "/* c */", " ",
    *sorted(FUNCTIONS),
])  # fmt: skip
SOURCES = st.lists(PIECES, max_size=14).map(" ".join) | st.lists(PIECES, max_size=8).map(
    lambda words: "{{" + " ".join(words) + "}}"
)
PIPELINES = st.builds(
    lambda name, arguments: "{{" + " ".join([name, *arguments]) + "}}",
    st.sampled_from(sorted(FUNCTIONS)),
    st.lists(st.sampled_from([".Name", ".List", ".Map", ".Number", ".None", '"x"', "1", "-1", "(len .Name)",
                              "999999999", "99999999999999999999", '"%999999999d"', '"%x%c%q"', "$",
                              "true"]), max_size=3),
)  # fmt: skip
VALUE = {"Name": "box", "List": ["a", 1, None], "Map": {"key": {"x": 1.5}}, "Number": 3, "None": None}
RECORD = Record({name: (lambda value=value: value) for name, value in VALUE.items()}, {"Label": str.upper})  # type: ignore[misc]


@settings(max_examples=4000, deadline=None)
@given(SOURCES | PIPELINES | st.text(max_size=30).map(lambda text: "{{" + text + "}}"))
@example("{{" + "(" * 5000 + "}}")
@example("{{" + "(" * 3000 + ".Name" + ")" * 3000 + "}}")
@example("{{if .Name}}" * 3000 + "{{end}}" * 3000)
@example("{{range 999999999999}}x{{end}}")
@example("{{pad .Name 999999999999 1}}")
@example('{{printf "%99999999999d" 1}}')
@example('{{printf "%.999999999f" 1.5}}')
@example("{{else}}{{end}}")
@example('{{"\\x"}}')
@example('{{index .List "a"}}')
def test_any_template_gives_text_or_an_error_in_words(source: str) -> None:
    for value in (VALUE, RECORD, None, "text", [1, 2]):
        try:
            text = Template(source).render(value)
            assert len(text) < 1 << 20
        except TemplateError as error:
            assert "\n" not in str(error) or "\n" in source


@settings(max_examples=1000, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=6), lambda inner: st.lists(
    inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3), max_leaves=8))  # fmt: skip
def test_json_of_any_value_is_read_back(value: object) -> None:
    assert json.loads(Template("{{json .}}").render(value)) == value


@settings(max_examples=2000, deadline=None)
@given(st.lists(st.text(st.sampled_from("-=hHDvtlsconfig /:"), max_size=12) | st.text(max_size=8), max_size=6))
def test_any_arguments_are_options_or_refused(arguments: list[str]) -> None:
    try:
        options, operands = parse(GLOBAL_OPTIONS, arguments, interspersed=True)
    except UsageError:
        return
    assert set(operands) <= set(arguments) and isinstance(options.flag("tls"), bool)


@settings(max_examples=3000, deadline=None)
@given(st.text(st.sampled_from("0123456789.kKmMgGbBiseh-+ nuµ_٣e"), max_size=12) | st.text(max_size=8))
@example("9" * 5000)
@example("1e400g")
@example("nan")
@example("inf")
def test_any_number_is_read_or_refused(text: str) -> None:
    for read in values.READERS.values():
        try:
            read(text)
        except ValueError:
            pass
