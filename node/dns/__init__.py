"""The node's name server: what containers resolve, from local facts only (DESIGN section 7)."""
