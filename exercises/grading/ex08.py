"""The hidden cases of exercise 08. Instructors keep this file; it is in no release."""

from minidocker.lab.checks import Bench, expect
from minidocker.registry import auth

TELL = """
import json
from minidocker.lab.props.paper_registry import PaperRegistry, digest_of
from minidocker.oci.manifest import DOCKER_MANIFEST, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST


def tell(function, *arguments):
    try:
        return ["fine", function(*arguments)]
    except NotImplementedError:
        raise
    except Exception as error:
        known = (PermissionError, LookupError, ValueError, OSError)
        kinds = [kind.__name__ for kind in known if isinstance(error, kind)]
        return [(kinds or [type(error).__name__])[0], str(error)]


def image(paper, tag, *layers, architecture="amd64", media_type=OCI_MANIFEST, **fields):
    contents = [(json.dumps({"architecture": architecture, "tag": tag}).encode(), OCI_CONFIG)]
    contents += [(layer, OCI_LAYER) for layer in layers]
    parts = [{"mediaType": kind, "digest": paper.put(content), "size": len(content)} for content, kind in contents]
    document = {"schemaVersion": 2, "config": parts[0], "layers": parts[1:]} | fields
    return paper.put_manifest(document, media_type, tag) | {"platform": {"os": "linux", "architecture": architecture}}


def fetcher(paper, log=None):
    def fetch(path, accept):
        if log is not None:
            log.append(path)
        status, headers, body = paper.send("GET", f"https://registry.test/v2/{path}", {"Accept": accept})
        if status != 200:
            raise LookupError(f"{path}: {status}")
        return headers, body

    return fetch
"""

HEADERS = [
    'Bearer realm="https://a.test/t",service="s"',
    'BEARER Realm = "https://a.test/t" , Service="a,b=c" ,scope="x y"',
    r'Basic realm="say \"hello\", \\ friend"',
    'Negotiate, Basic realm="x", Bearer realm="y",error="invalid_token"',
    "Negotiate",
    'Basic realm=plain, charset="UTF-8"',
    'Digest realm="a",nonce="b==",qop="auth,auth-int", Basic realm="c"',
    '  Basic   realm="two  blanks"  ',
    'Bearer realm=""',
    "",
]


def challenges(parse_challenges):
    """As the engine's own parser."""
    bench = Bench()
    try:
        seen = bench.run(
            TELL + "found = [tell(parse_challenges, header) for header in headers]",
            definitions=[parse_challenges],
            values={"headers": HEADERS},
            wanted=("found",),
        )["found"]
    finally:
        bench.close()
    for header, (kind, found) in zip(HEADERS, seen, strict=True):
        expected = [(one.scheme, one.parameters) for one in auth.parse_challenges([header])]
        given = [tuple(one) for one in found] if kind == "fine" else f"{kind}: {found}"
        expect(given == expected, f"the challenge {header!r}", given, expected, "")


HELPERS = """
import os, time
from minidocker.linux.mounts import mount

mount("tmpfs", "/mnt", "tmpfs")
os.environ["PATH"] = "/mnt:" + os.environ["PATH"]


def helper(name, script):
    path = f"/mnt/docker-credential-{name}"
    with open(path, "w") as file:
        file.write("#!/bin/sh\\n" + script)
    os.chmod(path, 0o755)
"""
ANSWER = """cat > /mnt/given
tr '\\0' ' ' < /proc/$$/cmdline > /mnt/words
printf '%s' '{"ServerURL": "x", "Username": "ü", "Secret": "p:w\\n"}'
"""


def helpers(ask_helper):
    """Nothing of a secret in errors or arguments; names that are no names; a helper that hangs."""
    bench = Bench()
    try:
        seen = bench.run(
            TELL
            + HELPERS
            + """
helper("good-1.x_Y", answer)
good = tell(ask_helper, "good-1.x_Y", "https://index.docker.io/v1/")
words, given = open("/mnt/words").read(), open("/mnt/given").read()
helper("half", "printf '%s' '{\\"Username\\": \\"me\\", \\"Secret\\": \\"s3cret'")
helper("other", "printf '%s' '[\\"s3cret\\"]'")
helper("less", "printf '%s' '{\\"Secret\\": \\"s3cret\\"}'")
bad = {name: tell(ask_helper, name, "s") for name in ("half", "other", "less")}
helper("none", "printf 'credentials not found in native keychain\\\\n'; exit 1")
helper("silent", "exit 3")
none, silent = tell(ask_helper, "none", "s"), tell(ask_helper, "silent", "s")
helper("hangs", "exec sleep 60")
begun = time.monotonic()
hangs = tell(ask_helper, "hangs", "s", 0.5)
took = time.monotonic() - begun
refused = {name: tell(ask_helper, name, "s")[0] for name in names}
made = os.path.exists("/mnt/made")
left = len(open(f"/proc/self/task/{os.getpid()}/children").read().split())
""",
            definitions=[ask_helper],
            values={
                "answer": ANSWER,
                "names": [
                    "",
                    "../../mnt/x",
                    "a b",
                    "x;touch /mnt/made",
                    "$(touch /mnt/made)",
                    "a/b",
                    "good-1.x_Y\n",
                    "é",
                ],
            },
            wanted=("good", "words", "given", "bad", "none", "silent", "hangs", "took", "refused", "made", "left"),
            timeout_seconds=8,
        )
    finally:
        bench.close()
    good = tuple(seen["good"][1]) if seen["good"][0] == "fine" else seen["good"]
    expect(good == ("ü", "p:w\n"), "user and secret are as the helper gives them", good, ("ü", "p:w\n"), "")
    expect(seen["words"].split()[-1] == "get", "its one argument is get", seen["words"], "get", "")
    expect(
        seen["given"].strip() == "https://index.docker.io/v1/", "the address on standard input", seen["given"], "", ""
    )
    for name, (kind, text) in seen["bad"].items():
        expect(kind == "OSError", "an answer that is no such object", kind, "OSError", "")
        expect("s3cret" not in text, "a secret in an error", "it is there", "nothing of the answer", "")
        expect(f"docker-credential-{name}" in text, "the error names the program", text, "its name", "")
    expect(seen["none"] == ["fine", None], "nothing for this registry, with a line end", seen["none"], None, "")
    silent = seen["silent"]
    expect(
        silent[0] == "OSError" and "docker-credential-silent" in silent[1], "it fails silently", silent, "OSError", ""
    )
    expect(seen["hangs"][0] == "OSError" and seen["took"] < 5, "a helper that hangs", seen["hangs"], "OSError", "")
    wrong = {name: kind for name, kind in seen["refused"].items() if kind != "ValueError"}
    expect(not wrong and not seen["made"], "names that are none are refused, and run nothing", wrong, "ValueError", "")
    expect(seen["left"] == 0, "no process is left", seen["left"], 0, "")


FETCHES = """
def hop(*answers):
    log, left = [], list(answers)

    def send(method, url, headers=None, body=b""):
        log.append((url, {name.lower(): value for name, value in (headers or {}).items()}.get("authorization", "")))
        return left.pop(0) if len(left) > 1 else left[0]

    return send, log


def to(place, status=307):
    return status, {"location": place}, b""


OK = (200, {"x": "y"}, b"done")
waited = []
known = {"a.test": "T"}
ports, log_ports = hop(to("https://a.test:8443/x"), OK)
port = tell(get, ports, waited.append, "https://a.test/v2/", None, dict(known))
plains, log_plain = hop(to("http://a.test/x"), OK)
plain = tell(get, plains, waited.append, "https://a.test/v2/", None, dict(known))
sames, log_same = hop(to("/x", 301), to("?y=1", 302), to("z", 303), to("/w", 308), OK)
same = tell(get, sames, waited.append, "https://a.test/v2/q", None, dict(known))
loops, log_loop = hop(to("/x"))
loop = tell(get, loops, waited.append, "https://a.test/v2/", None, {})
tens, _ = hop(*[to("/x")] * 10, OK)
ten = tell(get, tens, waited.append, "https://a.test/v2/", None, {})
busies, log_busy = hop((429, {"retry-after": "2"}, b""), (429, {}, b""), OK)
busy = tell(get, busies, waited.append, "https://a.test/v2/", None, {})
patience = list(waited)
evers, log_ever = hop((429, {}, b""))
ever = tell(get, evers, waited.append, "https://a.test/v2/", None, {})
statuses = {}
for code in (404, 500, 418):
    statuses[code] = tell(get, hop((code, {}, b""))[0], waited.append, "https://a.test/", None, {})[0]
only_basic, _ = hop((401, {"www-authenticate": 'Basic realm="x"'}, b""))
basics = tell(get, only_basic, waited.append, "https://a.test/", None, {})
seen_accept = []


def accepting(method, url, headers, body):
    seen_accept.append({name.lower(): value for name, value in headers.items()}.get("accept"))
    return OK


get(accepting, waited.append, "https://a.test/", None, {}, "text/x")

paper = PaperRegistry(users={"me": "p:w"}, token_uses=2)
digest = paper.put(b"layer")
url, tokens = f"https://registry.test/v2/a/b/blobs/{digest}", {}
three = [tell(get, paper.send, waited.append, url, ("me", "p:w"), tokens)[0] for _ in range(3)]
services = [one.url for one in paper.asked if one.host == "auth.test"]
kept = sorted(tokens)
nobody = tell(get, PaperRegistry(users={"me": "p"}).send, waited.append, url, None, {})
log_refusing = []


def always(method, url, headers=None, body=b""):
    log_refusing.append(url)
    if "auth.test" in url:
        return 200, {}, b'{"access_token": "A"}'
    return 401, {"www-authenticate": 'Bearer realm="https://auth.test/t",service="s"'}, b""


refused = tell(get, always, waited.append, "https://a.test/", None, {})
"""


def fetching(get, parse_challenges):
    """A token goes to nobody else; patience has an end; a token that has run out is renewed."""
    wanted = (
        "port", "log_ports", "plain", "log_plain", "same", "log_same", "loop", "log_loop", "ten", "busy", "patience",
        "ever", "log_ever", "statuses", "basics", "seen_accept", "three", "services", "kept", "nobody", "refused",
        "log_refusing",
    )  # fmt: skip
    bench = Bench()
    try:
        seen = bench.run(TELL + FETCHES, definitions=[get, parse_challenges], wanted=wanted)
    finally:
        bench.close()
    done = ["fine", [{"x": "y"}, b"done"]]
    for what, answer, log in (
        ("to another port", seen["port"], seen["log_ports"]),
        ("from https to http", seen["plain"], seen["log_plain"]),
    ):
        expect(_listed(answer) == done, f"a redirect {what} is followed", answer, "200", "")
        expect([each[1] for each in log] == ["Bearer T", ""], f"a token and a redirect {what}", log, "not sent", "")
    places = [each[0] for each in seen["log_same"]]
    right = [f"https://a.test/{path}" for path in ("v2/q", "x", "x?y=1", "z", "w")]
    expect(places == right, "relative redirects of all five kinds", places, right, "")
    stays = {each[1] for each in seen["log_same"]}
    expect(stays == {"Bearer T"}, "at the same host the token goes along", stays, "Bearer T", "")
    expect(
        seen["loop"][0] == "OSError" and len(seen["log_loop"]) <= 12,
        "a circle of redirects",
        seen["loop"],
        "OSError",
        "",
    )
    expect(_listed(seen["ten"]) == done, "ten redirects are fine", seen["ten"], "200", "")
    expect(_listed(seen["busy"]) == done and seen["patience"] == [2, 1], "waiting at 429", seen["patience"], [2, 1], "")
    expect(seen["ever"][0] == "OSError" and len(seen["log_ever"]) == 5, "always 429", seen["ever"], "OSError", "")
    kinds = {404: "LookupError", 500: "OSError", 418: "OSError"}
    expect(seen["statuses"] == kinds, "other statuses", seen["statuses"], kinds, "")
    expect(seen["basics"][0] == "PermissionError", "no Bearer challenge", seen["basics"], "PermissionError", "")
    expect(seen["seen_accept"] == ["text/x"], "the Accept header", seen["seen_accept"], "text/x", "")
    expect(seen["three"] == ["fine"] * 3, "a token that has run out is renewed", seen["three"], "three times fine", "")
    expect(len(seen["services"]) == 2, "a token is used as long as it is good", seen["services"], "2 tokens", "")
    scope = "scope=repository%3Aa%2Fb%3Apull"
    expect(scope in seen["services"][0], "service and scope are percent-encoded", seen["services"][0], scope, "")
    expect(seen["kept"] == ["registry.test"], "tokens are kept by host", seen["kept"], "registry.test", "")
    expect(
        seen["nobody"][0] == "PermissionError", "nobody, where a user is wanted", seen["nobody"], "PermissionError", ""
    )
    expect(seen["refused"][0] == "PermissionError", "a fresh token is refused", seen["refused"], "PermissionError", "")
    expect(len(seen["log_refusing"]) == 3, "one token is asked for, not more", seen["log_refusing"], "3 requests", "")


def _listed(answer):
    """Pairs may come as lists or as tuples."""
    return [answer[0], list(answer[1])] if answer[0] == "fine" else answer


PULLS = """
amd64 = {"os": "linux", "architecture": "amd64"}


def attempt(change, reference="one", **options):
    paper = PaperRegistry(**options)
    one = image(paper, "one", b"base", b"top")
    two = image(paper, "two", b"base", architecture="arm64", media_type=DOCKER_MANIFEST)
    paper.put_manifest({"schemaVersion": 2, "manifests": [two, one]}, OCI_INDEX, "both")
    reference = change(paper, one, two) or reference
    return tell(pull, fetcher(paper), "a/b", reference, amd64)


def other_manifest(paper, one, two):
    paper.manifests[one["digest"]] = paper.manifests["two"]
    return "both"


def by_digest(paper, one, two):
    paper.manifests[one["digest"]] = paper.manifests["two"]
    return one["digest"]


def wrong_size(paper, one, two):
    paper.put_manifest({"schemaVersion": 2, "manifests": [one | {"size": one["size"] + 1}]}, OCI_INDEX, "both")
    return "both"


def wrong_layer_size(paper, one, two):
    document = json.loads(paper.manifests["one"][1])
    document["layers"][1]["size"] += 1
    paper.put_manifest(document, OCI_MANIFEST, "one")


def schema_one(paper, one, two):
    paper.put_manifest({"schemaVersion": 1, "fsLayers": []}, OCI_MANIFEST, "one")


def other_type(paper, one, two):
    paper.manifests["one"] = ("application/vnd.oci.image.manifest", paper.manifests["one"][1])


def nested(paper, one, two):
    inner = paper.put_manifest({"schemaVersion": 2, "manifests": [one]}, OCI_INDEX) | {"platform": one["platform"]}
    paper.put_manifest({"schemaVersion": 2, "manifests": [inner]}, OCI_INDEX, "both")
    return "both"


def unwanted(paper, one, two):
    del one["platform"]
    paper.put_manifest({"schemaVersion": 2, "manifests": [one]}, OCI_INDEX, "both")
    return "both"


def lost(paper, one, two):
    del paper.blobs[digest_of(b"base")]


config = digest_of(json.dumps({"architecture": "amd64", "tag": "one"}).encode())
bad = {
    "a manifest that an index promised": attempt(other_manifest),
    "a manifest by digest": attempt(by_digest),
    "the size that an index promises": attempt(wrong_size),
    "the size that a manifest promises": attempt(wrong_layer_size),
    "a config that was exchanged": attempt(lambda *_: None, forged={config: b"{}"}),
    "a layer of the right length": attempt(lambda *_: None, forged={digest_of(b"top"): b"tip"}),
    "schema 1": attempt(schema_one),
    "an index in an index": attempt(nested),
}
missing = {"an entry without a platform": attempt(unwanted), "a layer that is lost": attempt(lost)}
strange = attempt(other_type)
paper, log = PaperRegistry(), []
one = image(paper, "one", b"same", b"same", b"other")
good = pull(fetcher(paper, log), "a/b", one["digest"], amd64)
paper.manifests["typed"] = ("application/vnd.oci.image.manifest.v1+json; charset=utf-8", paper.manifests["one"][1])


def lenient(path, accept):
    if "manifests" in path:
        return {"content-type": paper.manifests["typed"][0]}, paper.manifests["typed"][1]
    return fetcher(paper)(path, accept)


typed = tell(pull, lenient, "a/b", "typed", amd64)
docker = PaperRegistry()
image(docker, "d", b"x", media_type=DOCKER_MANIFEST)
dockers = tell(pull, fetcher(docker), "a/b", "d", amd64)
digest, whole = one["digest"], [digest_of(b"same"), digest_of(b"other")]
"""


def pulling(pull):
    """Everything that is promised is checked; each blob is fetched once; Docker's types are known too."""
    bench = Bench()
    try:
        names = ("bad", "missing", "strange", "good", "log", "typed", "dockers", "digest", "whole")
        seen = bench.run(TELL + PULLS, definitions=[pull], wanted=names)
    finally:
        bench.close()
    for what, (kind, found) in seen["bad"].items():
        expect(kind == "ValueError", f"{what} is checked", f"{kind}: {found}", "ValueError", "")
    for what, (kind, found) in seen["missing"].items():
        expect(kind == "LookupError", what, f"{kind}: {found}", "LookupError", "")
    expect(
        seen["strange"][0] in ("ValueError", "LookupError"), "an unknown media type", seen["strange"], "ValueError", ""
    )
    good = seen["good"]
    expect(good["digest"] == seen["digest"], "a pull by digest", good["digest"], seen["digest"], "")
    expect(set(seen["whole"]) < set(good["blobs"]) and len(good["blobs"]) == 3, "blobs", sorted(good["blobs"]), 3, "")
    expect(
        len(seen["log"]) == len(set(seen["log"])) == 4, "each address is fetched once", seen["log"], "4 addresses", ""
    )
    expect(seen["typed"][0] == "fine", "a content type with parameters", seen["typed"], "as without", "")
    expect(";" not in seen["typed"][1]["media_type"], "and the media type", seen["typed"][1]["media_type"], "no ;", "")
    expect(seen["dockers"][0] == "fine", "Docker's own media type", seen["dockers"], "an image", "")


PUSHES = """
def attempt(sizes, chunk, known=(), **options):
    paper = PaperRegistry(**options)
    contents = [bytes([number + 65]) * size for number, size in enumerate(sizes)]
    for number in known:
        paper.put(contents[number])
    blobs = {digest_of(content): content for content in contents}
    parts = [{"mediaType": "x", "digest": digest, "size": len(content)} for digest, content in blobs.items()]
    manifest = json.dumps({"schemaVersion": 2, "config": parts[0], "layers": parts[1:]}).encode()
    done = tell(push, paper.send, "registry.test", "deep/name", "v1", manifest, OCI_MANIFEST, blobs, chunk)
    whole = all(paper.blobs.get(digest) == content for digest, content in blobs.items())
    stored = paper.manifests.get("v1", ("", b"")) == (OCI_MANIFEST, manifest)
    asked = [(one.method, one.path.rpartition("/")[2], one.size) for one in paper.asked]
    return [done, digest_of(manifest), whole, stored, asked]


plain = attempt([5, 30, 31], 10, chunk_limit=10)
exact = attempt([10, 20], 10, chunk_limit=10)
nothing = attempt([1, 0], 10, chunk_limit=10)
large = attempt([5, 30], 1000)
all_known = attempt([5, 6], 10, known=(0, 1))
lying = attempt([5, 6], 10, told_digest="sha256:" + "0" * 64)
small = attempt([5, 30], 10, chunk_limit=9)
full = PaperRegistry()
x = digest_of(b"x")
manifest = json.dumps({"schemaVersion": 2, "config": {"digest": x}, "layers": []}).encode()


def failing(wanted, status):
    # the registry, but for one method
    return lambda method, *rest: (status, {}, b"") if method == wanted else full.send(method, *rest)


def push_to(send):
    return tell(push, send, "registry.test", "n", "t", manifest, OCI_MANIFEST, {x: b"x"}, 5)


refused, broken = push_to(failing("POST", 507)), push_to(failing("HEAD", 500))
absolute, asked = PaperRegistry(), []


def elsewhere(method, url, headers, body):
    asked.append(url)
    status, answer, content = absolute.send(method, url, headers, body)
    if "location" in answer:
        answer["location"] = "https://registry.test" + answer["location"]
    return status, answer, content


whole_address = push_to(elsewhere)
"""


def pushing(push):
    """What is there is not sent; pieces at their limits; the address of each answer; failures are told."""
    names = ("plain", "exact", "nothing", "large", "all_known", "lying", "small", "refused", "whole_address", "broken")
    bench = Bench()
    try:
        seen = bench.run(TELL + PUSHES, definitions=[push], wanted=names)
    finally:
        bench.close()
    for name in ("plain", "exact", "nothing", "large", "all_known"):
        done, digest, whole, stored, _asked = seen[name]
        expect(done == ["fine", digest], f"push ({name})", done, digest, "")
        expect(whole and stored, f"all is there as it was sent ({name})", [whole, stored], "every byte", "")
    sizes = [size for method, _, size in seen["exact"][4] if method == "PATCH"]
    expect(sizes == [10, 10, 10], "pieces are as large as they may be", sizes, [10, 10, 10], "")
    methods = [method for method, _, _ in seen["all_known"][4]]
    expect(methods == ["HEAD", "HEAD", "PUT"], "of what is there nothing is sent", methods, "HEAD, HEAD, PUT", "")
    last = [tuple(one)[:2] for one in seen["plain"][4]][-1]
    expect(last == ("PUT", "v1"), "the manifest comes last", last, "PUT v1", "")
    expect(
        seen["lying"][0][0] == "ValueError",
        "the registry has stored something else",
        seen["lying"][0],
        "ValueError",
        "",
    )
    expect(seen["small"][0][0] == "OSError", "a piece is turned down", seen["small"][0], "OSError", "")
    expect(not seen["small"][3], "then there is no manifest", "it is there", "none", "")
    expect(seen["refused"][0] == "OSError", "an upload is refused", seen["refused"], "OSError", "")
    expect(seen["broken"][0] == "OSError", "HEAD fails", seen["broken"], "OSError", "")
    expect(seen["whole_address"][0] == "fine", "an absolute upload address", seen["whole_address"], "fine", "")


CASES = {
    "ex08-challenge": challenges,
    "ex08-helper": helpers,
    "ex08-get": fetching,
    "ex08-pull": pulling,
    "ex08-push": pushing,
}
