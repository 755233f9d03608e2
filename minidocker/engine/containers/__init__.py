"""Containers: what is asked for, made, started, watched, changed and removed."""
