"""Named volumes of the node: made once, never silently new."""
