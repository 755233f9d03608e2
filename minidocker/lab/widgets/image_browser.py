"""The blobs of an image archive, one at a time: what is in it, what it points to, and its digest computed at each look.

Source  OCI image-spec, descriptor.md; ipywidgets documentation, "Widget Events".
Rules   - the archive that is shown is never changed: a changed byte is shown on a copy.
"""

import html
import json
import tarfile
import zlib
from typing import Any

from minidocker.lab.diagrams.images import TOP, Blob, blobs_of
from minidocker.lab.props.image_archive import ImageArchive, descriptors_in, listing
from minidocker.lab.widgets.shown import ipywidgets, shown
from minidocker.oci.digest import Digest

LISTED = 60


class ImageBrowser:
    """Choose a blob; see its content, its descriptors, and whether its bytes have the digest that names them.

    In code: `browser.choose(digest)`, `browser.change_a_byte(True)`, `browser.text()`.
    """

    def __init__(self, archive: ImageArchive) -> None:
        self.archive = archive
        self.blobs: dict[str, Blob] = blobs_of(archive)
        self.chosen = next(iter(self.blobs))
        self.changed = False

    def choose(self, digest: str) -> "ImageBrowser":
        """Look at another blob, or at the beginning ("index.json"). Raises LookupError: it is not in the archive."""
        if digest != TOP and digest not in self.blobs:
            raise LookupError(f"no blob {digest} in this archive")
        self.chosen = digest
        return self

    def change_a_byte(self, changed: bool) -> "ImageBrowser":
        """Look at a copy of the blob in which one bit of the last byte is another."""
        self.changed = changed
        return self

    def content(self) -> bytes:
        """The bytes that are looked at."""
        if self.chosen == TOP:
            return json.dumps(self.archive.index).encode()
        whole = self.archive.blobs[self.chosen]
        return whole[:-1] + bytes([whole[-1] ^ 1]) if self.changed else whole

    def links(self) -> list[str]:
        """The digests that the chosen document points to."""
        document = self.archive.index if self.chosen == TOP else self._document()
        return [entry["digest"] for entry in descriptors_in(document)]

    def _document(self) -> Any:
        return self.archive.read_json(self.chosen) if self.blobs[self.chosen].kind != "layer" else None

    def verdict(self) -> str:
        """The digest, computed now, beside the name."""
        if self.chosen == TOP:
            return f"{TOP} is the beginning: it has no digest, and nothing vouches for it."
        found = Digest.of(self.content())
        if found == self.chosen:
            return f"name      {self.chosen}\ncomputed  {found}\nThey agree."
        return f"name      {self.chosen}\ncomputed  {found}\nTHEY DIFFER: not the bytes that the name promises."

    def text(self) -> str:
        """All that is shown, as plain text."""
        return f"{self.label(self.chosen)}\n{self.verdict()}\n\n{self._shown()}"

    def _shown(self) -> str:
        content = self.content()
        try:
            if self.chosen != TOP and self.blobs[self.chosen].kind == "layer":
                return "\n".join(listing(content, limit=LISTED))
            return json.dumps(json.loads(content), indent=2)
        except (ValueError, tarfile.TarError, zlib.error) as error:
            return f"{len(content)} bytes that can no longer be read: {error}"

    def label(self, digest: str) -> str:
        """A blob in one line."""
        if digest == TOP:
            return TOP
        blob = self.blobs[digest]
        return f"{blob.kind} {blob.short} {blob.note}".strip() + f" ({blob.size} bytes)"

    def widget(self) -> Any:
        """A list of the blobs, a box to change a byte, the content, and a button for each descriptor; or None."""
        return _Panel(self).box if ipywidgets is not None else None

    def _repr_mimebundle_(self, **options: object) -> dict[str, Any]:
        lines = "\n".join(f"  {self.label(digest)}" for digest in (TOP, *self.blobs))
        return shown(self.widget(), {"text/plain": f"{lines}\n\n{self.text()}"}, options)


class _Panel:
    """The browser's buttons and fields."""

    def __init__(self, browser: ImageBrowser) -> None:
        self.browser = browser
        options = [(browser.label(digest), digest) for digest in (TOP, *browser.blobs)]
        wide = ipywidgets.Layout(width="32em", max_width="100%")
        self.list = ipywidgets.Dropdown(options=options, value=browser.chosen, description="blob", layout=wide)
        self.change = ipywidgets.Checkbox(value=browser.changed, description="change one bit", indent=False)
        self.verdict, self.content = ipywidgets.HTML(), ipywidgets.HTML()
        self.links = ipywidgets.HBox(layout=ipywidgets.Layout(flex_flow="row wrap"))
        self.list.observe(self._chosen, names="value")
        self.change.observe(self._changed, names="value")
        self.box = ipywidgets.VBox([self.list, self.change, self.verdict, self.links, self.content])
        self._draw()

    def _chosen(self, change: dict[str, Any]) -> None:
        self.browser.choose(change["new"])
        self._draw()

    def _changed(self, change: dict[str, Any]) -> None:
        self.browser.change_a_byte(change["new"])
        self._draw()

    def _draw(self) -> None:
        self.verdict.value = f"<pre style='margin:0'>{html.escape(self.browser.verdict())}</pre>"
        self.content.value = f"<pre style='max-height:22em; overflow:auto'>{html.escape(self.browser._shown())}</pre>"
        self.links.children = [self._link(digest) for digest in dict.fromkeys(self.browser.links())]

    def _link(self, digest: str) -> Any:
        button = ipywidgets.Button(description=f"go to {self.browser.label(digest)}", tooltip=digest)
        button.layout.width = "max-content"
        button.on_click(lambda _button: setattr(self.list, "value", digest))
        return button


def browse(archive: ImageArchive) -> ImageBrowser:
    """The browser, for the last line of a cell."""
    return ImageBrowser(archive)
