"""Compose files of our own for tests of the loader, and what is expected of each."""
