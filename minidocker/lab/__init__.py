"""What the notebooks use: `%load_ext minidocker.lab` adds the cell magic `%%isolated`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def load_ipython_extension(shell: "InteractiveShell") -> None:
    """Called by `%load_ext minidocker.lab`."""
    from minidocker.lab.isolated import register

    register(shell)
