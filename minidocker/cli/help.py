"""Help, and what is said when a command line is wrong.

Source  the layout of docker's help (cobra and pflag, wrapped to the terminal).
Rules   - never on the hot path.
"""

import difflib
import os
import shutil

from minidocker.cli.index import COMMANDS, COMMON, GROUPS
from minidocker.cli.main import GLOBAL_OPTIONS
from minidocker.cli.options import table
from minidocker.cli.session import PROGRAM, Command, write_all

_ALIASES = ("list", "ps", "remove")


def _columns() -> int:
    return shutil.get_terminal_size((80, 24)).columns if os.isatty(1) else 80


def _print(descriptor: int, text: str) -> None:
    write_all(descriptor, text.encode())


def options_text(options: str) -> str:
    """The table of options, aligned and wrapped."""
    shown_options = sorted((o for o in table(options) if o.text), key=lambda o: o.name)
    lines = [(f"  -{o.short}, " if o.short else "      ") + f"--{o.name}" + (f" {o.kind}" if o.kind else "")
             for o in shown_options]
    width = max((len(line) for line in lines), default=0) + 3
    room = max(24, _columns() - 1 - width)
    shown = []
    for line, option in zip(lines, shown_options, strict=True):
        first, *more = _wrap(option.text, room)
        shown.append(f"{line:<{width}}{first}")
        shown += [" " * width + piece for piece in more]
    return "\n".join(shown)


def _wrap(text: str, room: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > room:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def usage_failure(problem: str, path: str, command: Command | None) -> int:
    """Say what is wrong with the options, or print the help that was asked for; the exit status."""
    path = path or PROGRAM
    if problem == "help":
        if command is None:
            _print(1, overview())
        else:
            _print(1, command_help(path, command))
        return 0
    usage = f"Usage:  {path} {command.usage}" if command else f"Usage:  {PROGRAM} [OPTIONS] COMMAND [ARG...]"
    _print(2, f"{problem}\n\n{usage}\n\nRun '{path} --help' for more information\n")
    return 125


def wrong_number(path: str, command: Command) -> int:
    """Say how many operands the command takes; the exit status."""
    low, high = command.minimum, command.maximum
    plural = "" if (low or high) == 1 else "s"
    verb = "See" if high is None else "Run"
    if high == 0:
        text = "accepts no arguments"
    elif high is None:
        text = f"requires at least {low} argument{plural}"
    elif low == high:
        text = f"requires {low} argument{plural}"
    elif low == 0:
        text = f"requires at most {high} argument{'' if high == 1 else 's'}"
    else:
        text = f"requires at least {low} and at most {high} arguments"
    _print(2, f"{PROGRAM}: '{path}' {text}\n\nUsage:  {path} {command.usage}\n\n"
              f"{verb} '{path} --help' for more information\n")
    return 1


def command_help(path: str, command: Command) -> str:
    """The help of one command."""
    words = path.split()[1:]
    name = words[0] if words[0] not in GROUPS else GROUPS[words[0]][1][words[1]]
    forms = [f"{PROGRAM} {group} {word}" for group, (_, members) in GROUPS.items()
             for word, target in members.items() if target == name]
    forms += [f"{PROGRAM} {name}"] if " " not in name else []
    text = f"Usage:  {path} {command.usage}\n\n{COMMANDS[name][2]}\n"
    if len(forms) > 1:
        text += f"\nAliases:\n  {', '.join(forms)}\n"
    if command.options.strip():
        text += f"\nOptions:\n{options_text(command.options)}\n"
    return text


def _rows(names: list[tuple[str, str]]) -> str:
    return "".join(f"  {name:<11} {text}\n" for name, text in names)


def overview() -> str:
    """The help of the whole program."""
    common = [(name, COMMANDS[name][2]) for name in COMMON]
    groups = [(name, text) for name, (text, _) in sorted(GROUPS.items())]
    others = [(name, text) for name, (_, _, text) in sorted(COMMANDS.items())
              if " " not in name and name not in COMMON and name[0] != "_"]
    return (f"Usage:  {PROGRAM} [OPTIONS] COMMAND\n\nA container engine that can be read in a weekend\n\n"
            f"Common Commands:\n{_rows(common)}\nManagement Commands:\n{_rows(groups)}\n"
            f"Commands:\n{_rows(others)}\nGlobal Options:\n{options_text(GLOBAL_OPTIONS)}\n\n"
            f"Run '{PROGRAM} COMMAND --help' for more information on a command.\n")


def _group_help(name: str) -> str:
    text, members = GROUPS[name]
    rows = [(word, COMMANDS[target][2]) for word, target in sorted(members.items()) if word not in _ALIASES]
    return (f"Usage:  {PROGRAM} {name} COMMAND\n\n{text}\n\nCommands:\n{_rows(rows)}\n"
            f"Run '{PROGRAM} {name} COMMAND --help' for more information on a command.\n")


def group_or_unknown(words: list[str]) -> int:
    """What to say when the words name no command: a group's or the whole help, or that there is none; the status."""
    if words and words[0] == "help":
        words = [*words[1:], "--help"]
        if words[0] in COMMANDS:
            from minidocker.cli.main import run

            return run(words, {})
    named = [word for word in words if not word.startswith("-")]
    if not named:
        _print(1, overview())
        return 0
    if named[0] in GROUPS and len(named) == 1:
        # Asked for it goes to stdout, given for want of a command to stderr.
        _print(1 if "--help" in words else 2, _group_help(named[0]))
        return 0
    in_group = named[0] in GROUPS
    parent = f"{PROGRAM} {named[0]}" if in_group else PROGRAM
    wrong = named[1] if in_group else named[0]
    known = list(GROUPS[named[0]][1]) if in_group else [*[n for n in COMMANDS if " " not in n and n[0] != "_"], *GROUPS]
    close = difflib.get_close_matches(wrong, known, n=3, cutoff=0.6)
    text = f"{PROGRAM}: unknown command: {parent} {wrong}\n\n"
    if in_group:
        text += f"Usage:  {parent}\n\n"
    if close:
        text += "Did you mean this?\n" + "".join(f"\t{parent} {word}\n" for word in close) + "\n"
    _print(2, f"{text}Run '{parent} --help' for more information\n")
    return 1
