"""How fast and how right is gossip, beside Serf in the same namespaces, and alone in simulation?"""
