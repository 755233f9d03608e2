"""Shell completion: three small scripts that ask this program, and the answers, from the tables of options.

Source  bash(1), "Programmable Completion"; zshcompsys(1); fish's `complete`.
Rules   - the shells know nothing of the commands: `minidocker __complete -- WORD...` does. Its last word is the one to
          be completed; it prints a candidate and its description a line, and at last `:files` or `:none`.
        - whatever is wrong, a broken daemon too, is no candidates and no noise.
"""

from minidocker.cli.index import COMMANDS, GROUPS
from minidocker.cli.options import Option, Options, parse, table
from minidocker.cli.session import Command, CommandFailure, Session

_BASH = """# bash completion of minidocker:  source <(minidocker completion bash)
_minidocker() {
    local line=${COMP_LINE:0:COMP_POINT} cut= cur directive entry
    local -a words out
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    cur=${words[${#words[@]}-1]}
    # readline replaces only what follows the last of its word breaks
    [[ $cur == *[:=]* ]] && cut=${cur%"${cur##*[:=]}"}
    mapfile -t out < <("$1" __complete -- "${words[@]:1}" 2>/dev/null)
    (( ${#out[@]} )) || return
    directive=${out[${#out[@]}-1]}
    unset "out[${#out[@]}-1]"
    COMPREPLY=()
    for entry in "${out[@]}"; do
        entry=${entry%%$'\\t'*}
        COMPREPLY+=("${entry#"$cut"}")
    done
    if [[ $directive == :files ]]; then
        compopt -o filenames 2>/dev/null
        mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "${cur#"$cut"}")
    fi
}
complete -F _minidocker minidocker
"""
_ZSH = """#compdef minidocker
# zsh completion of minidocker:  source <(minidocker completion zsh), or as _minidocker in a directory of $fpath
_minidocker() {
    local -a out described
    local directive entry
    out=("${(@f)$("${words[1]}" __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    directive=${out[-1]}
    out[-1]=()
    for entry in "${out[@]}"; do
        described+=("${${entry%%$'\\t'*}//:/\\\\:}:${entry#*$'\\t'}")
    done
    (( ${#described} )) && _describe -t minidocker minidocker described
    [[ $directive == :files ]] && _files
    return 0
}
if [[ ${funcstack[1]} == _minidocker ]]; then
    _minidocker "$@"
else
    compdef _minidocker minidocker
fi
"""
_FISH = """# fish completion of minidocker:  minidocker completion fish | source
function __minidocker_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l out ($words[1] __complete -- $words[2..-1] 2>/dev/null)
    test (count $out) -gt 0; or return
    test (count $out) -gt 1; and printf '%s\\n' $out[1..-2]
    test "$out[-1]" = :files; and __fish_complete_path (commandline -ct)
end
complete -c minidocker -f -a '(__minidocker_complete)'
"""
SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}

Candidates = list[tuple[str, str]]
FILES, NOTHING = ":files", ":none"
_FILE_OPTIONS = frozenset((
    "cidfile", "config", "env-file", "file", "input", "label-file", "output", "tlscacert", "tlscert", "tlskey",
    "volume",
))  # fmt: skip
_CHOICES = {
    "isolation": ("default",),
    "log-driver": ("json-file", "local", "none", "syslog"),
    "log-level": ("debug", "info", "warn", "error", "fatal"),
    "pull": ("always", "missing", "never"),
    "restart": ("always", "no", "on-failure", "unless-stopped"),
    "signal": ("SIGHUP", "SIGINT", "SIGKILL", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2"),
    "stop-signal": ("SIGHUP", "SIGINT", "SIGKILL", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2"),
    "type": ("container", "image", "network", "plugin", "volume"),
}
_RUNNING_ONLY = frozenset(("attach", "exec", "kill", "pause", "stats", "stop", "top", "unpause"))
_KINDS = ("CONTAINER", "IMAGE", "NETWORK", "PLUGIN", "VOLUME")


def script(session: Session, options: Options, operands: list[str]) -> int:
    """`completion SHELL`: print the script that the shell is to source."""
    if operands[0] not in SCRIPTS:
        raise CommandFailure(f"unknown shell {operands[0]!r}; there are: {', '.join(sorted(SCRIPTS))}")
    session.out(SCRIPTS[operands[0]])
    return 0


def complete(session: Session, options: Options, operands: list[str]) -> int:
    """`__complete -- WORD...`"""
    try:
        found, directive = candidates(operands or [""], session)
    except Exception:       # a shell in the middle of a line has no use for an error
        found, directive = [], NOTHING
    session.out("".join(f"{word}\t{text}\n" for word, text in found) + f"{directive}\n")
    return 0


def candidates(words: list[str], session: Session) -> tuple[Candidates, str]:
    """What the last of `words` may become, and FILES if names of files are wanted too."""
    from minidocker.cli.main import GLOBAL_OPTIONS, open_session

    *before, current = words
    rest = _after_options(before, table(GLOBAL_OPTIONS))
    if rest is None or (not rest and (before or current.startswith("-"))):
        return _option(before, current, GLOBAL_OPTIONS, session)
    if not rest:
        return _starting(current, [(name, text) for name, text in _names()]), NOTHING
    given, _ = parse(GLOBAL_OPTIONS, before[: len(before) - len(rest)])
    session = open_session(given, dict(session.environment))
    name, *rest = rest
    if name in GROUPS:
        if not rest:
            members = [(word, COMMANDS[target][2]) for word, target in sorted(GROUPS[name][1].items())]
            return _starting(current, members), NOTHING
        name = GROUPS[name][1].get(rest.pop(0), "")
    if name not in COMMANDS:
        return [], NOTHING
    return _of_command(name, rest, current, session)


def _names() -> Candidates:
    single = [(name, entry[2]) for name, entry in COMMANDS.items() if " " not in name and name[0] != "_"]
    return sorted([*single, *((name, text) for name, (text, _) in GROUPS.items())])


def _starting(current: str, found: Candidates) -> Candidates:
    return [(word, text) for word, text in found if word.startswith(current)]


def _after_options(words: list[str], options: list[Option]) -> list[str] | None:
    """The words from the first operand on; None if the last word is an option that waits for its value."""
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if len(word) < 2 or word[0] != "-":
            return words[position - 1 :]
        position += _waits(word, options)
    return None if position > len(words) else []


def _waits(word: str, options: list[Option]) -> bool:
    """True if the value of the option `word` is the next word."""
    if word.startswith("--"):
        return "=" not in word and any(o.kind and f"--{o.name}" == word for o in options)
    kinds = {o.short: o.kind for o in options if o.short}
    for index, letter in enumerate(word[1:], 1):
        if kinds.get(letter):
            return index == len(word) - 1
    return False


def _option(before: list[str], current: str, options: str, session: Session) -> tuple[Candidates, str]:
    """Options themselves, or the value of the one before."""
    known = table(options)
    if before and _waits(before[-1], known):
        last = before[-1]
        named = last[2:] if last.startswith("--") else next(o.name for o in known if o.short == last[-1])
        return _value(named, current, session)
    if current.startswith("--") and "=" in current:
        name, _, value = current.partition("=")
        found, directive = _value(name[2:], value, session)
        return [(f"{name}={word}", text) for word, text in found], directive
    if not current.startswith("-"):
        return _starting(current, _names()), NOTHING
    shown = [o for o in known if o.text]
    words = [(f"--{o.name}", o.text) for o in shown] + [(f"-{o.short}", o.text) for o in shown if o.short]
    return _starting(current, sorted([*words, ("--help", "Print usage")])), NOTHING


def _value(name: str, current: str, session: Session) -> tuple[Candidates, str]:
    if name in _CHOICES:
        return _starting(current, [(word, "") for word in _CHOICES[name]]), NOTHING
    if name in ("network", "net", "volumes-from"):
        kind = "CONTAINER" if name == "volumes-from" else "NETWORK"
        return _starting(current, _objects(kind, session)), NOTHING
    return [], FILES if name in _FILE_OPTIONS else NOTHING


def _of_command(name: str, rest: list[str], current: str, session: Session) -> tuple[Candidates, str]:
    module, attribute, _ = COMMANDS[name]
    command = getattr(__import__(f"minidocker.cli.commands.{module}", None, None, [attribute]), attribute)
    known = table(command.options)
    operands = 0
    position = 0
    while position < len(rest):
        word = rest[position]
        position += 1
        if len(word) > 1 and word[0] == "-" and (command.interspersed or not operands):
            position += _waits(word, known)
        else:
            operands += 1
    if position > len(rest) or (current.startswith("-") and (command.interspersed or not operands)):
        return _option(rest, current, command.options, session)
    if name == "completion":
        return _starting(current, [(shell, "") for shell in sorted(SCRIPTS)] if not operands else []), NOTHING
    if command.maximum is not None and operands >= command.maximum:
        return [], NOTHING
    return _operand(name, command, operands, rest, current, session)


def _operand(name: str, command: Command, operands: int, rest: list[str], current: str,
             session: Session) -> tuple[Candidates, str]:
    """By the words of the command's usage: the kind that its next operand has."""
    places = [word.strip("[].") for word in command.usage.split() if word.strip("[].") != "OPTIONS"]
    place = places[min(operands, len(places) - 1)] if places else ""
    if name == "cp":
        if "/" in current or current.startswith("."):
            return [], FILES
        return _starting(current, [(f"{word}:", text) for word, text in _objects("CONTAINER", session)]), FILES
    if name == "inspect" or place.startswith(("NAME|ID",)):
        found = [one for kind in _KINDS for one in _objects(kind, session)]
    else:
        kinds = [kind for kind in _KINDS if place.startswith((kind, f"SOURCE_{kind}", f"TARGET_{kind}"))]
        if place.startswith(("NAME[", "REPOSITORY")):
            kinds = ["IMAGE"]
        if name in ("volume create", "network create") or not kinds:
            return [], NOTHING if kinds or places[:1] != ["file|URL|-"] else FILES
        found = _objects(kinds[0], session, running=name in _RUNNING_ONLY)
    return [one for one in _starting(current, found) if one[0] not in rest], NOTHING


def _objects(kind: str, session: Session, *, running: bool = False) -> Candidates:
    """The names of what the daemon has."""
    request = session.transport.request
    if kind == "CONTAINER":
        listed = _records(request("GET", "/containers/json", query={"all": not running}).json())
        return [(name[1:], f"{one['Image']}, {one['Status']}") for one in listed for name in _texts(one["Names"])]
    if kind == "IMAGE":
        listed = _records(request("GET", "/images/json").json())
        return sorted((name, "") for one in listed for name in _texts(one["RepoTags"]) if "<none>" not in name)
    if kind == "NETWORK":
        return sorted((str(one["Name"]), str(one["Driver"])) for one in _records(request("GET", "/networks").json()))
    if kind == "PLUGIN":
        return sorted((str(one["Name"]), "") for one in _records(request("GET", "/plugins").json()))
    answer = request("GET", "/volumes").json()
    listed = _records(answer.get("Volumes") if isinstance(answer, dict) else None)
    return sorted((str(one["Name"]), str(one["Driver"])) for one in listed)


def _records(value: object) -> list[dict[str, object]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _texts(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []


COMPLETION = Command(script, "bash|zsh|fish", "", 1, 1)
COMPLETE = Command(complete, "-- WORD...", "", 0, None, interspersed=False)
