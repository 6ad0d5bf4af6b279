"""The leader's side of the nodes: their streams, what they report, and what they are held to be."""
