"""The template language: docker's documented --format examples, and Go's rules beneath them."""

import pytest

from minidocker.cli.template import Record, Template, TemplateError

CONTAINER = {
    "Id": "abc", "Name": "/web", "Created": 5,
    "State": {"Running": True, "Pid": 42, "Health": None},
    "Config": {"Image": "busybox", "Labels": {"com.example.a": "1"}, "Cmd": ["sh", "-c", "x"], "Env": []},
    "NetworkSettings": {
        "Networks": {"b": {"IPAddress": "10.0.0.2", "MacAddress": "02:42"}, "a": {"IPAddress": "10.0.0.1"}},
        "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]},
    },
}


@pytest.mark.parametrize(("source", "text"), [
    ("{{.Id}}", "abc"),
    ("{{.ID}}", "abc"),
    ("{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}", "10.0.0.1 10.0.0.2 "),
    ("{{range $name, $n := .NetworkSettings.Networks}}{{$name}}={{$n.IPAddress}};{{end}}", "a=10.0.0.1;b=10.0.0.2;"),
    ('{{range $p, $conf := .NetworkSettings.Ports}} {{$p}} -> {{(index $conf 0).HostPort}} {{end}}',
     " 80/tcp -> 8080 "),
    ('{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}', "8080"),
    ('{{index .Config.Labels "com.example.a"}}', "1"),
    ("{{json .Config.Cmd}}", '["sh","-c","x"]'),
    ('{{join .Config.Cmd ", "}}', "sh, -c, x"),
    ('{{split .Name "/"}}', "[ web]"),
    ("{{upper .Config.Image}} {{title .Config.Image}}", "BUSYBOX Busybox"),
    ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
    ("{{if eq .State.Pid 7}}a{{else if eq .State.Pid 42}}b{{else}}c{{end}}", "b"),
    ("{{if and .State.Running (gt .State.Pid 40)}}y{{end}}", "y"),
    ("{{if not .Config.Env}}none{{end}}", "none"),
    ("{{with .State}}{{.Pid}}{{end}}", "42"),
    ("{{range .Config.Env}}x{{else}}empty{{end}}", "empty"),
    ("{{len .Config.Cmd}} {{.Config.Cmd}} {{.State.Running}}", "3 [sh -c x] true"),
    ('{{printf "%s:%d %q" .Id .Created .Name}}', 'abc:5 "/web"'),
    ('{{.Id | printf "<%s>" | upper}}', "<ABC>"),
    ("{{$x := .Id}}{{$x}}{{$x}}", "abcabc"),
    ("a {{- .Id -}} b", "a {{- .Id -}} b".replace(" {{- .Id -}} ", "abc")),
    ("{{/* nothing */}}{{println .Id}}", "abc\n"),
    ("{{truncate .Config.Image 4}}{{pad .Id 1 2}}|", "busy abc  |"),
    ('{{slice .Config.Image 0 3}} {{"q\\"s"}} {{`raw`}}', 'bus q"s raw'),
    ("{{json .Name}} {{.State.Health}}", '"/web" <no value>'),
])
def test_the_language(source: str, text: str) -> None:
    assert Template(source).render(CONTAINER) == text


def test_json_is_written_as_go_writes_it() -> None:
    assert Template("{{json .}}").render({"a": "<&>é", "b": None}) == '{"a":"\\u003c\\u0026\\u003eé","b":null}'


def test_a_record_has_only_its_members_and_methods() -> None:
    record = Record({"ID": lambda: "1"}, {"Label": lambda name: name.upper()}, "ContainerContext")
    assert Template('{{.ID}} {{.Label "x"}} {{json .}}').render(record) == '1 X {"ID":"1"}'
    with pytest.raises(TemplateError, match=r"can't evaluate field Foo in type \*formatter\.ContainerContext"):
        Template("{{.Foo}}").render(record)


@pytest.mark.parametrize(("source", "problem"), [
    ("{{.Id", "unclosed action"), ("{{if .Id}}", "unexpected EOF"), ("{{end}}", "unexpected {{end}}"),
    ("{{nope .Id}}", 'function "nope" not defined'), ("{{.Foo.x}}", 'at <.Foo.x>: map has no entry for key "Foo"'),
    ("{{index .Config.Cmd 9}}", "index out of range: 9"), ("{{$y}}", 'undefined variable "$y"'), ("{{}}", "missing"),
])
def test_mistakes_are_named(source: str, problem: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Template(source).render(CONTAINER)
    assert problem in str(caught.value)
