"""Volumes: the local driver's and those of plugins."""
