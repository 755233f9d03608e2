"""How a widget is shown where ipywidgets is present, and what stands there where it is absent.

Source  IPython documentation, "Rich display"; ipywidgets documentation, "Low Level Widget Explanation".
"""

from typing import Any

try:
    import ipywidgets
except ImportError:  # the lessons then show text and pictures without buttons
    ipywidgets = None

__all__ = ["ipywidgets", "shown"]


def shown(widget: Any, otherwise: dict[str, str], options: dict[str, object]) -> dict[str, Any]:
    """The widget's mime bundle; `otherwise` is what a reader without a kernel sees instead of it."""
    return otherwise if widget is None else dict(widget._repr_mimebundle_(**options)) | otherwise
