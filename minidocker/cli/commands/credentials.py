"""Credentials for registries: docker's config.json, its helpers, `login` and `logout`.

Source  docker's config.json (auths, credsStore, credHelpers); docker-credential-helpers' protocol.
Rules   - the file keeps what others wrote in it; written aside and renamed, mode 0600.
        - a helper is a program `docker-credential-NAME` that speaks JSON on stdin and stdout.
"""

import base64
import os
import subprocess
import sys

from minidocker.cli.options import Options
from minidocker.cli.references import DOCKER_HUB
from minidocker.cli.session import Command, CommandFailure, Session
from minidocker.client.documents import dumps, indent, loads

LOGIN_OPTIONS = """
-p, --password string   Password or token
    --password-stdin    Read the password from stdin
-u, --username string   User name
"""
Document = dict[str, object]


def read_config(config_dir: str) -> Document:
    """The whole config.json; empty if there is none. Raises CommandFailure if it is broken."""
    path = os.path.join(config_dir, "config.json")
    try:
        with open(path, "rb") as file:
            document = loads(file.read())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CommandFailure(f"error loading config file {path}: {error}") from None
    return document if isinstance(document, dict) else {}


def write_config(config_dir: str, document: Document) -> None:
    """Replace config.json."""
    os.makedirs(config_dir, mode=0o700, exist_ok=True)
    path = os.path.join(config_dir, "config.json")
    aside = f"{path}.{os.getpid()}"
    with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(indent(dumps(document), "\t"))
        file.flush()
        os.fsync(file.fileno())
    os.rename(aside, path)


def _helper(document: Document, server: str) -> str:
    helpers = document.get("credHelpers")
    chosen = helpers.get(server) if isinstance(helpers, dict) else None
    return str(chosen or document.get("credsStore") or "")


def _ask_helper(name: str, verb: str, text: str) -> Document:
    program = f"docker-credential-{name}"
    try:
        done = subprocess.run([program, verb], input=text.encode(), capture_output=True, check=False)
    except OSError as error:
        raise CommandFailure(f"error getting credentials - err: exec: {program}: {error.strerror}") from None
    if done.returncode != 0:
        if b"not found" in done.stdout:
            return {}
        raise CommandFailure(f"error getting credentials - err: {program} ended with {done.returncode}, "
                             f"out: `{done.stdout.decode(errors='replace').strip()}`")
    answer = loads(done.stdout) if verb == "get" else {}
    return answer if isinstance(answer, dict) else {}


def credentials(config_dir: str, server: str) -> Document:
    """What the daemon needs to log in at `server`, in the API's AuthConfig form; empty if nothing is known."""
    document = read_config(config_dir)
    helper = _helper(document, server)
    if helper:
        answer = _ask_helper(helper, "get", server)
        if not answer:
            return {}
        if answer.get("Username") == "<token>":
            return {"identitytoken": answer.get("Secret"), "serveraddress": server}
        return {"username": answer.get("Username"), "password": answer.get("Secret"), "serveraddress": server}
    auths = document.get("auths")
    entry = auths.get(server) if isinstance(auths, dict) else None
    if not isinstance(entry, dict) or not (entry.get("auth") or entry.get("identitytoken")):
        return {}
    name, _, password = base64.b64decode(str(entry.get("auth") or "")).decode(errors="replace").partition(":")
    found: Document = {"username": name, "password": password.rstrip("\0"), "serveraddress": server}
    if entry.get("identitytoken"):
        found["identitytoken"] = entry["identitytoken"]
    return found


def _server(operands: list[str]) -> str:
    if not operands or operands[0] in ("docker.io", "index.docker.io"):
        return DOCKER_HUB
    return operands[0].removeprefix("https://").removeprefix("http://").split("/")[0]


def login(session: Session, options: Options, operands: list[str]) -> int:
    """`login [SERVER]`: have the daemon try the credentials, and keep them."""
    server = _server(operands)
    username, password = options.text("username"), options.text("password")
    if options.flag("password-stdin"):
        if password:
            raise CommandFailure("--password and --password-stdin are mutually exclusive")
        if not username:
            raise CommandFailure("Must provide --username with --password-stdin")
        password = sys.stdin.read().removesuffix("\n").removesuffix("\r")
    elif password:
        session.error("WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n")
    username, password = _ask(username, password)
    body = {"username": username, "password": password, "serveraddress": server}
    answer = session.transport.request("POST", "/auth", body=body).json()
    assert isinstance(answer, dict)
    _keep(session, server, username, password, str(answer.get("IdentityToken") or ""))
    session.out(f"{answer.get('Status') or 'Login Succeeded'}\n")
    return 0


def _ask(username: str, password: str) -> tuple[str, str]:
    if username and password:
        return username, password
    if not os.isatty(0):
        raise CommandFailure("Error: Cannot perform an interactive login from a non TTY device")
    import getpass

    username = username or input("Username: ")
    password = password or getpass.getpass("Password: ")
    if not password:
        raise CommandFailure("Error: Password Required")
    return username, password


def _keep(session: Session, server: str, username: str, password: str, token: str) -> None:
    document = read_config(session.config_dir)
    auths = document.setdefault("auths", {})
    assert isinstance(auths, dict)
    helper = _helper(document, server)
    if helper:
        entry = {"ServerURL": server, "Username": "<token>" if token else username, "Secret": token or password}
        _ask_helper(helper, "store", dumps(entry))
        auths[server] = {}
    else:
        auths[server] = {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}
        if token:
            auths[server] = {"auth": base64.b64encode(f"{username}:".encode()).decode(), "identitytoken": token}
        path = os.path.join(session.config_dir, "config.json")
        session.error(f"\nWARNING! Your credentials are stored unencrypted in '{path}'.\n"
                      "A credential helper (credsStore) keeps them safer.\n\n")
    write_config(session.config_dir, document)


def logout(session: Session, options: Options, operands: list[str]) -> int:
    """`logout [SERVER]`: forget the credentials."""
    server = _server(operands)
    document = read_config(session.config_dir)
    auths = document.get("auths")
    if not isinstance(auths, dict) or server not in auths:
        session.out(f"Not logged in to {operands[0] if operands else server}\n")
        return 0
    session.out(f"Removing login credentials for {operands[0] if operands else server}\n")
    helper = _helper(document, server)
    if helper:
        _ask_helper(helper, "erase", server)
    del auths[server]
    write_config(session.config_dir, document)
    return 0


LOGIN = Command(login, "[OPTIONS] [SERVER]", LOGIN_OPTIONS, 0, 1)
LOGOUT = Command(logout, "[SERVER]", "", 0, 1)
