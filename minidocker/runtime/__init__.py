"""The OCI runtime: a bundle becomes a process.

Read in this order: lifecycle (the caller's side), launcher, monitor, container, init (pid 1's plan), rootfs, exec.
"""
