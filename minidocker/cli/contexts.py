"""Docker's contexts and TLS settings, as far as a client must read them.

Source  docker's context store: <config>/contexts/meta/<sha256 of the name>/meta.json, tls/<same>/docker/*.pem.
Rules   - imported only when a context is named or TLS is asked for.
        - the current context of docker's config.json is not followed: minidocker's own socket is the default.
"""

import hashlib
from pathlib import Path

from minidocker.cli.options import Options
from minidocker.cli.session import CommandFailure
from minidocker.client.documents import loads
from minidocker.client.transport import TlsFiles


def endpoint(config_dir: str, name: str) -> tuple[str, TlsFiles | None]:
    """The daemon's address in the context `name`, and its TLS files if it has any. Raises CommandFailure."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    meta = Path(config_dir) / "contexts/meta" / digest / "meta.json"
    try:
        document = loads(meta.read_bytes())
    except (OSError, ValueError):
        raise CommandFailure(
            f'Failed to initialize: unable to resolve docker endpoint: context "{name}": context not found: '
            f"open {meta}: no such file or directory") from None
    endpoints = document.get("Endpoints", {}) if isinstance(document, dict) else {}
    docker = endpoints.get("docker", {})
    directory = Path(config_dir) / "contexts/tls" / digest / "docker"
    if not directory.is_dir():
        return str(docker.get("Host", "")), None
    return str(docker.get("Host", "")), _files(directory, verify=not docker.get("SkipTLSVerify", False))


def _files(directory: Path, *, verify: bool) -> TlsFiles:
    def existing(name: str) -> str | None:
        return str(directory / name) if (directory / name).exists() else None

    return TlsFiles(existing("ca.pem"), existing("cert.pem"), existing("key.pem"), verify=verify)


def tls_files(options: Options, environment: dict[str, str], config_dir: str) -> TlsFiles:
    """The TLS files that the options name, or those in DOCKER_CERT_PATH or the configuration's directory."""
    verify = options.flag("tlsverify") or bool(environment.get("DOCKER_TLS_VERIFY"))
    files = _files(Path(environment.get("DOCKER_CERT_PATH") or config_dir), verify=verify)
    files.ca = options.text("tlscacert") or files.ca
    files.certificate = options.text("tlscert") or files.certificate
    files.key = options.text("tlskey") or files.key
    return files
