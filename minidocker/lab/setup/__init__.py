"""What `./lab` makes on a machine: base images, the local registry, the daemon, the kernels of notebooks."""
