"""The commands, one module for each or for a few that are alike; index.py says which."""
