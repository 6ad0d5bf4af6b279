"""The control plane: keeps what was asked, elects a leader, and turns it into assignments."""
