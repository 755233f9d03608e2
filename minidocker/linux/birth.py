"""Birth in a control group: a child that is in its version 2 group from its first instruction on.

Source  clone3(2), CLONE_INTO_CGROUP (Linux 5.7); kernel include/uapi/linux/sched.h, struct clone_args.
Rules   - moving a process into a version 2 group holds up every fork of the machine for an RCU grace period (5 to 10
          ms);
          being born there costs nothing. Version 1 trees know no such birth: the child moves itself there, which is
          cheap.
        - the caller must be its process's only thread, as for fork.
"""

import errno
import os
import signal
import struct

from minidocker.errors import KernelError
from minidocker.linux.cgroups import Cgroup
from minidocker.linux.syscall import clone_process

_CLONE_INTO_CGROUP = 0x2_0000_0000
_NOT_HERE = (errno.ENOSYS, errno.EINVAL, errno.E2BIG, errno.EPERM)


def fork_into(group: Cgroup | None) -> tuple[int, bool]:
    """Fork. Returns (pid, born): 0 and True in a child that is in the group's version 2 part already.

    born False: there is no such part, or no such call; the child has to join by itself.
    Raises  KernelError: EBUSY the group hands controllers to children, EAGAIN a limit of processes.
    """
    directory = group.directory() if group is not None else None
    if directory is None:
        return os.fork(), False
    try:
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError("open", directory, error.errno or 0) from None
    try:
        # flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup
        return clone_process(struct.pack("=11Q", _CLONE_INTO_CGROUP, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, fd)), True
    except KernelError as error:
        if error.errno not in _NOT_HERE:
            raise
        return os.fork(), False
    finally:
        os.close(fd)
