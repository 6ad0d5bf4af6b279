"""The node's stream to the leader: who it finds, what it says, what it is told."""
