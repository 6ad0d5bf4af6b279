"""The agent: turns the node's assignment into containers, and keeps them so."""
