"""Which scheduler leads? A pure machine, and the driver that carries its effects to the store."""
