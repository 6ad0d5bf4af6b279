"""Containers on this machine: a port, and its adapters for Docker and for tests."""
