"""The hidden cases of exercise 06. Instructors keep this file; it is in no release."""

import hashlib
import io
import tarfile

from minidocker.lab.checks import Bench, expect
from minidocker.lab.props.image_archive import ImageArchive, layer_of
from minidocker.oci.digest import Digest
from minidocker.oci.manifest import DOCKER_INDEX, DOCKER_MANIFEST, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST

REF_NAME = "org.opencontainers.image.ref.name"
ROOM = """
import hashlib, io, json, os, tarfile
from minidocker.linux.mounts import mount
mount("tmpfs", "/mnt", "tmpfs")


def tell(function, *arguments):
    try:
        return ["fine", function(*arguments)]
    except NotImplementedError:
        raise
    except Exception as error:
        kinds = [kind.__name__ for kind in (LookupError, ValueError, OSError) if isinstance(error, kind)]
        return [(kinds or [type(error).__name__])[0], str(error)]
"""


def store(blobs):
    """Whole or not at all, nothing left aside, no way out of the directory."""
    bench = Bench()
    try:
        seen = bench.run(
            ROOM
            + """
import resource
open("/mnt/secret", "w").write("secret")
store = Blobs("/mnt/new/store")
place = "/mnt/new/store/blobs/sha256"
twice = [store.put(content), store.put(content)]
again = Blobs("/mnt/new/store").get(twice[0])
alone = sorted(os.listdir(place))
bad = {}
for text in strange:
    bad[text] = tell(store.get, text)[0]
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
full = tell(store.put, big)[0]
half = tell(store.get, "sha256:" + hashlib.sha256(big).hexdigest())[0]
left = sorted(os.listdir(place))
""",
            definitions=[blobs],
            values={"content": b"some bytes\0\xff", "big": bytes(range(256)) * 40, "strange": STRANGE},
            wanted=("twice", "again", "alone", "bad", "full", "half", "left"),
        )
    finally:
        bench.close()
    name = hashlib.sha256(b"some bytes\0\xff").hexdigest()
    expect(seen["twice"] == [f"sha256:{name}"] * 2, "put names the bytes, twice the same", seen["twice"], name, "")
    expect(seen["again"] == b"some bytes\0\xff", "another store object finds them", seen["again"], "the bytes", "")
    expect(seen["alone"] == [name], "one file a blob, nothing beside it", seen["alone"], [name], "")
    wrong = [text for text, kind in seen["bad"].items() if kind != "ValueError"]
    expect(not wrong, "what is no digest is refused before it becomes a path", wrong, "ValueError", "")
    expect(seen["full"] == "OSError", "put tells that the disk is full", seen["full"], "OSError", "")
    expect(seen["half"] == "LookupError", "half a blob does not exist", seen["half"], "LookupError", "")
    expect(seen["left"] == seen["alone"], "a failed put leaves nothing behind", seen["left"], seen["alone"], "")


STRANGE = [
    "sha256:../../../../secret",
    "sha256:" + "A" * 64,
    "sha512:" + "0" * 64,
    "0" * 64,
    "sha256:" + "0" * 63,
    "sha256:/mnt/secret",
    "",
]


# ---------------------------------------------------------------- choose and resolve


def _offer(architecture, variant=None, os="linux"):
    platform = {"os": os, "architecture": architecture} | ({"variant": variant} if variant else {})
    return {
        "mediaType": OCI_MANIFEST,
        "digest": str(Digest.of(f"{os}{architecture}{variant}".encode())),
        "platform": platform,
    }


V6, V7, PLAIN = _offer("arm", "v6"), _offer("arm", "v7"), _offer("arm")
WINDOWS, UNNAMED = _offer("arm", "v7", os="windows"), {"mediaType": OCI_MANIFEST, "digest": str(Digest.of(b"?"))}
CHOICES = [
    ([V6, V7], {"os": "linux", "architecture": "arm", "variant": "v7"}, V7),
    ([PLAIN, V7], {"os": "linux", "architecture": "arm", "variant": "v7"}, V7),
    ([WINDOWS, V6, PLAIN], {"os": "linux", "architecture": "arm", "variant": "v7"}, PLAIN),
    ([V6, PLAIN], {"os": "linux", "architecture": "arm"}, PLAIN),
    ([V6, V7], {"os": "linux", "architecture": "arm"}, V6),
    ([UNNAMED, V7], {"os": "linux", "architecture": "arm", "variant": "v7"}, V7),
    ([UNNAMED, WINDOWS, V6], {"os": "linux", "architecture": "arm", "variant": "v7"}, None),
    ([], {"os": "linux", "architecture": "amd64"}, None),
]


def resolving(choose, resolve):
    """Variants; an index of an index; whatever a stranger may have written into a document."""
    bench = Bench()
    try:
        _choosing(bench, choose)
        _refusing(bench, choose, resolve)
    finally:
        bench.close()


def _choosing(bench, choose):
    code = ROOM + "\nseen = [tell(choose, entries, platform) for entries, platform in cases]"
    seen = bench.run(code, definitions=[choose], values={"cases": [case[:2] for case in CHOICES]}, wanted=("seen",))[
        "seen"
    ]
    for (_, platform, right), (kind, value) in zip(CHOICES, seen, strict=True):
        if right is None:
            expect(kind == "LookupError", "no manifest suits: that is an error", kind, "LookupError", "")
            expect(platform["architecture"] in str(value), "the error names what was wanted", value, platform, "")
        else:
            expect(value == right, "the best of the manifests is chosen", value, right, "")


def _refusing(bench, choose, resolve):
    archive = ImageArchive()
    good = archive.add_image("x", [layer_of({"a": b"1"})])
    good.pop("annotations")
    amd64 = {"os": "linux", "architecture": "amd64"}
    inner = archive.put_json({"schemaVersion": 2, "manifests": [good | {"platform": amd64}]}, DOCKER_INDEX)
    nested = archive.put_json({"schemaVersion": 2, "manifests": [inner | {"platform": amd64}]}, OCI_INDEX)
    old = archive.put_json({"schemaVersion": 1, "fsLayers": []}, DOCKER_MANIFEST)
    odd = archive.put_json({"schemaVersion": 2}, "application/vnd.example.chart.v1+json")
    changed = archive.put_json(archive.read_json(good["digest"]) | {"annotations": {"a": "b"}}, OCI_MANIFEST)
    archive.blobs[changed["digest"]] = archive.blobs[changed["digest"]].replace(b'"b"', b'"c"')
    longer = good | {"size": good["size"] - 1}
    lost = good | {"digest": "sha256:" + "1" * 64}
    cases = {"nested": nested, "old": old, "odd": odd, "changed": changed, "longer": longer, "lost": lost}
    named = [entry | {"annotations": {REF_NAME: name}} for name, entry in cases.items()]
    index = {"schemaVersion": 2, "manifests": [{**good}, *named]}  # the first one has no name
    seen = bench.run(
        ROOM + "\nseen = {name: tell(resolve, blobs.__getitem__, index, name, amd64) for name in names}",
        definitions=[choose, resolve],
        values={"blobs": archive.blobs, "index": index, "names": list(cases), "amd64": amd64},
        wanted=("seen",),
    )["seen"]
    right = ["fine", (good["digest"], archive.read_json(good["digest"]))]
    expect([seen["nested"][0], tuple(seen["nested"][1])] == right, "an index in an index", seen["nested"], right, "")
    for name, concept in REFUSALS.items():
        expect(seen[name][0] == "ValueError", concept, seen[name], "ValueError", "")
    expect("schema 1" in seen["old"][1], "the reason is told: schema 1", seen["old"], "schema 1", "")
    expect(odd["mediaType"] in seen["odd"][1], "the media type is named", seen["odd"], odd["mediaType"], "")
    expect(seen["lost"][0] == "LookupError", "a manifest that is not there", seen["lost"], "LookupError", "")


REFUSALS = {
    "old": "a document of schema 1 is refused",
    "odd": "what is no image is refused",
    "changed": "bytes with another digest are refused",
    "longer": "bytes of another size are refused",
}


# ---------------------------------------------------------------- what is needed


def reaching(reachable, garbage):
    """Shared layers, an index in the index, blobs of other machines that are not here."""
    archive = ImageArchive()
    base = layer_of({"base": b"b"})
    one, two, three = (archive.add_image(name, [base, layer_of({name: b""})]) for name in ("one", "two", "three"))
    absent = {"mediaType": OCI_MANIFEST, "digest": "sha256:" + "7" * 64, "size": 7}
    many = archive.put_json({"schemaVersion": 2, "manifests": [two, absent]}, OCI_INDEX)
    # A layer may look like a document: nobody is to read it.
    trap = archive.put_json({"manifests": [three]}, OCI_LAYER)
    trapped = archive.read_json(one["digest"])
    trapped["layers"].append(trap)
    first = archive.put_json(trapped, OCI_MANIFEST)
    index = {"schemaVersion": 2, "manifests": [first, many]}
    bench = Bench()
    try:
        seen = bench.run(
            ROOM
            + """
needed = reachable(blobs.__getitem__, index)
waste = garbage(list(blobs), blobs.__getitem__, index)
nothing = garbage(list(blobs), blobs.__getitem__, {"schemaVersion": 2, "manifests": []})
""",
            definitions=[reachable, garbage],
            values={"blobs": archive.blobs, "index": index},
            wanted=("needed", "waste", "nothing"),
        )
    finally:
        bench.close()
    right = {first["digest"], many["digest"], two["digest"], absent["digest"], trap["digest"]}
    for document in (trapped, archive.read_json(two["digest"])):
        right |= {document["config"]["digest"], *(layer["digest"] for layer in document["layers"])}
    missed, more = right - set(seen["needed"]), set(seen["needed"]) - right
    expect(not missed, "all that the images need is reached, also through an index", missed, "nothing missing", "")
    expect(not more, "a layer is an end, whatever is in it", more, "nothing more", "")
    expect(set(seen["waste"]) == set(archive.blobs) - right, "the rest is garbage", len(seen["waste"]), "the rest", "")
    expect(set(seen["nothing"]) == set(archive.blobs), "without images all is garbage", len(seen["nothing"]), "all", "")


# ---------------------------------------------------------------- archives

ARCHIVES = """
def attempt(path):
    kept = {}
    def put(content):
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        kept[digest] = content
        return digest
    return [*tell(load, path, put), sorted(kept)]


for time in ("1", "2"):
    save(blobs.__getitem__, index, ["one", "many"], f"/mnt/{time}.tar")
same = open("/mnt/1.tar", "rb").read() == open("/mnt/2.tar", "rb").read()
with tarfile.open("/mnt/1.tar") as tar:
    members = tar.getnames()
good = attempt("/mnt/1.tar")
unknown = tell(save, blobs.__getitem__, index, ["nobody"], "/mnt/3.tar")[0]
results = {}
for name, content in archives.items():
    open(f"/mnt/{name}.tar", "wb").write(content)
    results[name] = attempt(f"/mnt/{name}.tar")
escaped = os.path.exists("/mnt/escaped")
"""


def archiving(save, load):
    """Only what is needed, once, the same each time; a bad archive stores nothing."""
    archive = ImageArchive()
    base = layer_of({"base": b"shared"})
    for name in ("one", "two", "three"):
        archive.add_image(name, [base, layer_of({name: b"x"})])
    one, two, three = archive.index["manifests"]
    one, three = one | {"annotations": {REF_NAME: "one"}}, three | {"annotations": {REF_NAME: "three"}}
    many = archive.put_json({"schemaVersion": 2, "manifests": [two]}, OCI_INDEX) | {"annotations": {REF_NAME: "many"}}
    archive.index["manifests"] = [one, three, many]
    bench = Bench()
    try:
        seen = bench.run(
            ROOM + ARCHIVES,
            definitions=[save, load],
            values={"blobs": archive.blobs, "index": archive.index, "archives": _bad(archive, one)},
            wanted=("same", "members", "good", "unknown", "results", "escaped"),
        )
    finally:
        bench.close()
    _judge_saved(seen, archive, three)
    wanted = {one["digest"], many["digest"], two["digest"]}
    expect(wanted <= set(seen["good"][2]), "load stores an index in the index, too", seen["good"][2], wanted, "")
    for name in ("lost", "link", "truncated"):
        kind, _, kept = seen["results"][name]
        expect(kind == "ValueError", f"a blob that is not whole ({name})", kind, "ValueError", "")
        expect(not kept, "nothing of a bad archive is stored", len(kept), 0, "")
    kind, _, kept = seen["results"]["more"]
    expect(kind == "fine" and len(kept) == 4, "what no image needs is not stored", f"{kind}, {len(kept)} blobs", 4, "")
    expect(not seen["escaped"], "nothing is written under a name of the archive", "a file", "nothing", "")


def _judge_saved(seen, archive, three):
    expect(seen["same"], "the same images give the same bytes", "they differ", "the same", "")
    names = seen["members"]
    expect(len(names) == len(set(names)), "each blob is there once", len(names), len(set(names)), "")
    left_out = {three["digest"], archive.read_json(three["digest"])["config"]["digest"]}
    more = {f"sha256:{name.rpartition('/')[2]}" for name in names} & left_out
    expect(not more, "only the images that were named are saved", more, "none of the others", "")
    expect({"index.json", "oci-layout"} <= set(names), "it is an OCI layout", names[:3], "index.json, oci-layout", "")
    expect(seen["good"][0] == "fine", "a round trip", seen["good"], "no error", "")
    expect(seen["unknown"] == "LookupError", "an image that is not there", seen["unknown"], "LookupError", "")


def _bad(archive, one):
    """Archives of the image `one` with something wrong, by name."""
    part = ImageArchive({"schemaVersion": 2, "manifests": [one]}, {})
    document = archive.read_json(one["digest"])
    for entry in (one, document["config"], *document["layers"]):
        part.blobs[entry["digest"]] = archive.blobs[entry["digest"]]
    top = document["layers"][1]["digest"]
    lost, truncated, more = part.copy(), part.copy(), part.copy()
    del lost.blobs[top]
    truncated.blobs[top] = truncated.blobs[top][:-512]
    more.put(b"nobody needs me", OCI_CONFIG)
    return {"lost": lost.pack(), "truncated": truncated.pack(), "more": _climbing(more), "link": _linked(lost, top)}


def _climbing(archive):
    buffer = io.BytesIO(archive.pack())
    with tarfile.open(fileobj=buffer, mode="a") as tar:
        entry = tarfile.TarInfo("../escaped")
        entry.size = 1
        tar.addfile(entry, io.BytesIO(b"!"))
    return buffer.getvalue()


def _linked(archive, digest):
    """The blob is a symbolic link to a file of the machine that loads it."""
    buffer = io.BytesIO(archive.pack())
    with tarfile.open(fileobj=buffer, mode="a") as tar:
        entry = tarfile.TarInfo(f"blobs/sha256/{digest.partition(':')[2]}")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(entry)
    return buffer.getvalue()


CASES = {"ex06-store": store, "ex06-resolve": resolving, "ex06-reach": reaching, "ex06-archive": archiving}
