"""Logs of containers: drivers, formats, reading."""
