"""A registry on paper: it answers requests by a function call, without a network, and remembers what it was asked.

Source  OCI distribution-spec v1.1 ("Pulling", "Pushing"); distribution docs, "Token authentication"; RFC 9110.
Rules   - for exercises and their checks: no socket, no thread, no clock, so every run is the same.
        - it is as strict as the strictest real ones: a stale upload address is gone, a chunk must begin where the last
          one ended, a manifest needs its blobs, and a store of files turns down a token that was not meant for it.
        - names of hosts end in .test, which nobody owns (RFC 6761).
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

HOST, TOKEN_HOST, STORE_HOST = "registry.test", "auth.test", "store.test"
Answer = tuple[int, dict[str, str], bytes]


def digest_of(content: bytes) -> str:
    """ "sha256:<hex>"."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it came."""

    method: str
    url: str
    headers: dict[str, str]
    size: int

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    @property
    def path(self) -> str:
        return urlsplit(self.url).path


@dataclass
class PaperRegistry:
    """A registry, its token service and its store of files; `send` asks one of the three.

    users        name -> password; given, nobody gets in without a token.
    redirects    blobs are to be fetched from the store of files.
    busy         so many requests are turned down with 429 first, each with `retry_after` seconds.
    token_uses   a token is good for so many requests; 0: for ever.
    chunk_limit  the largest body of an upload's PATCH and PUT; 0: any.
    forged       what is sent for a digest instead of the blob.
    told_digest  what it says a pushed manifest's digest is; "": the truth.
    """

    users: Mapping[str, str] = field(default_factory=dict)
    redirects: bool = False
    busy: int = 0
    retry_after: int = 3
    token_uses: int = 0
    chunk_limit: int = 0
    forged: Mapping[str, bytes] = field(default_factory=dict)
    told_digest: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    _tokens: dict[str, tuple[str, int]] = field(default_factory=dict)
    _uploads: dict[str, tuple[bytes, int]] = field(default_factory=dict)

    def put(self, content: bytes) -> str:
        """Keep a blob."""
        digest = digest_of(content)
        self.blobs[digest] = content
        return digest

    def put_manifest(self, document: Mapping[str, object], media_type: str, tag: str = "") -> dict[str, object]:
        """Keep a manifest or an index under its digest, and under a tag; its descriptor."""
        content = json.dumps(document).encode()
        for name in (digest_of(content), tag):
            if name:
                self.manifests[name] = (media_type, content)
        return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}

    def send(self, method: str, url: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Answer:
        """One request: (status, headers in lower case, body). Nothing is followed, and nothing is tried again."""
        asked = Asked(method, url, {name.lower(): value for name, value in (headers or {}).items()}, len(body))
        self.asked.append(asked)
        if self.busy:
            self.busy -= 1
            return 429, {"retry-after": str(self.retry_after)}, b"slow down"
        if asked.host == TOKEN_HOST:
            return self._token(asked)
        if asked.host == STORE_HOST:
            return self._stored(asked)
        if asked.host != HOST:
            return 421, {}, b"no such host"
        return self._refused(asked) or self._served(asked, body)

    # -- the token service, and the store of files --

    def _token(self, asked: Asked) -> Answer:
        query = parse_qs(urlsplit(asked.url).query)
        coded = asked.headers.get("authorization", "").removeprefix("Basic ")
        user, _, password = base64.b64decode(coded).decode("utf-8", "replace").partition(":")
        if self.users.get(user) != password or query.get("service") != [HOST] or "scope" not in query:
            return 401, {}, b"wrong user or password, service or scope"
        token = f"token-{len(self._tokens)}"
        self._tokens[token] = (query["scope"][0], 0)
        return 200, {"content-type": "application/json"}, json.dumps({"token": token}).encode()

    def _refused(self, asked: Asked) -> Answer | None:
        """401 with the challenge, unless a token for this repository came along."""
        if not self.users:
            return None
        scope = f"repository:{'/'.join(asked.path.split('/')[2:-2]) or 'none'}:pull"
        token = asked.headers.get("authorization", "").removeprefix("Bearer ")
        granted, uses = self._tokens.get(token, ("", 0))
        if granted == scope and (not self.token_uses or uses < self.token_uses):
            self._tokens[token] = (granted, uses + 1)
            return None
        challenge = f'Bearer realm="https://{TOKEN_HOST}/token",service="{HOST}",scope="{scope}"'
        return 401, {"www-authenticate": challenge}, b"{}"

    def _stored(self, asked: Asked) -> Answer:
        if "authorization" in asked.headers:
            return 400, {}, b"this token was not meant for me"
        return self._blob(asked.path.rpartition("/")[2])

    # -- the registry itself --

    def _served(self, asked: Asked, body: bytes) -> Answer:
        name, kind, rest = self._parts(asked.path)
        if kind == "manifests":
            return self._put_manifest(rest, asked, body) if asked.method == "PUT" else self._manifest(rest, asked)
        if kind == "uploads":
            return self._upload(name, rest, asked, body)
        if kind == "blobs" and asked.method == "HEAD":
            status = 200 if rest in self.blobs else 404
            return status, {"content-length": str(len(self.blobs.get(rest, b"")))}, b""
        if kind == "blobs" and self.redirects and rest in self.blobs:
            return 307, {"location": f"https://{STORE_HOST}/files/{rest}"}, b""
        return self._blob(rest) if kind == "blobs" else (404, {}, b"no such path")

    @staticmethod
    def _parts(path: str) -> tuple[str, str, str]:
        """Repository, "manifests" | "blobs" | "uploads", and what follows."""
        words = path.removeprefix("/v2/").split("/")
        for kind in ("uploads", "manifests", "blobs"):
            if kind in words[:-1]:
                at = words.index(kind)
                return "/".join(words[: at - (kind == "uploads")]), kind, "/".join(words[at + 1 :])
        return "", "", path

    def _manifest(self, name: str, asked: Asked) -> Answer:
        media_type, content = self.manifests.get(name, ("", b""))
        accepted = [part.strip() for part in asked.headers.get("accept", "").split(",")]
        if not media_type or media_type not in accepted:
            return 404, {}, b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}'
        return 200, {"content-type": media_type, "docker-content-digest": digest_of(content)}, content

    def _blob(self, digest: str) -> Answer:
        if digest not in self.blobs:
            return 404, {}, b'{"errors": [{"code": "BLOB_UNKNOWN"}]}'
        return 200, {"content-type": "application/octet-stream"}, self.forged.get(digest, self.blobs[digest])

    def _upload(self, name: str, rest: str, asked: Asked, body: bytes) -> Answer:
        if asked.method == "POST":
            rest = f"upload-{len(self._uploads)}"
            self._uploads[rest] = (b"", 0)
        query = parse_qs(urlsplit(asked.url).query)
        content, step = self._uploads.get(rest, (b"", -1))
        if step < 0 or (asked.method != "POST" and query.get("state") != [str(step)]):
            return 404, {}, b'{"errors": [{"code": "BLOB_UPLOAD_UNKNOWN"}]}'
        if self.chunk_limit and len(body) > self.chunk_limit:
            return 413, {}, b"too large a piece"
        if asked.method == "PATCH" and asked.headers.get("content-range", "").partition("-")[0] != str(len(content)):
            return 416, {}, b"that is not where the last piece ended"
        content += body
        self._uploads[rest] = (content, step + 1)
        if asked.method == "PUT":
            if query.get("digest") != [digest_of(content)]:
                return 400, {}, b'{"errors": [{"code": "DIGEST_INVALID"}]}'
            self.blobs[digest_of(content)] = content
            return 201, {"location": f"/v2/{name}/blobs/{digest_of(content)}"}, b""
        return 202, {"location": f"/v2/{name}/blobs/uploads/{rest}?state={step + 1}"}, b""

    def _put_manifest(self, name: str, asked: Asked, body: bytes) -> Answer:
        document = json.loads(body)
        needed = [document["config"], *document["layers"]]
        if any(part["digest"] not in self.blobs for part in needed):
            return 400, {}, b'{"errors": [{"code": "MANIFEST_BLOB_UNKNOWN"}]}'
        for key in (name, digest_of(body)):
            self.manifests[key] = (asked.headers.get("content-type", ""), body)
        return 201, {"docker-content-digest": self.told_digest or digest_of(body)}, b""
