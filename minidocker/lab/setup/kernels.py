"""Which kernel a notebook of the course gets, whatever kernel its metadata names.

Source  jupyter_server: MappingKernelManager; "Config file and command line options", kernel_manager_class.
Rules   - exercises run what learners write, as root: they get the sandbox. Lessons get an ordinary kernel, since they
          look at the machine's own processes, links and mounts; their experiments are in `%%isolated` cells.
        - the notebooks' metadata name python3, which is everywhere: so they open, and can be checked, without `./lab`.
"""

from typing import Any

from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager

from minidocker.lab import sandbox

SANDBOXED = "exercises"
ORDINARY = "python3"


def kernel_for(path: str, wanted: str | None) -> str | None:
    """The kernel of a notebook in the directory `path`, from the course's top; another language's is left alone."""
    inside = path.strip("/").split("/")[0] == SANDBOXED
    return sandbox.NAME if inside and wanted in (None, "", ORDINARY) and sandbox.directory().exists() else wanted


class KernelsByPlace(AsyncMappingKernelManager):
    """Starts the kernels of `./lab`'s JupyterLab."""

    async def start_kernel(self, *, path: Any = None, kernel_name: str | None = None, **how: Any) -> str:  # type: ignore[override]
        """As its parent does, with the kernel that the place asks for."""
        chosen = kernel_for(path or "", kernel_name)
        return str(await super().start_kernel(path=path, kernel_name=chosen, **how))
