"""The node daemon: turns its assignment into containers and keeps them so."""
