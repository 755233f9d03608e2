"""Pictures of live state, one module for each kind of thing that is drawn.

Rules   - a picture is drawn from what the kernel or the daemon says at that moment, never from what we believe.
"""

from minidocker.lab.diagrams.mounts import mount_tree
from minidocker.lab.diagrams.namespaces import namespaces_of
from minidocker.lab.diagrams.picture import Picture
from minidocker.lab.diagrams.processes import process_tree, processes_below, status_of

__all__ = ["Picture", "mount_tree", "namespaces_of", "process_tree", "processes_below", "status_of"]
