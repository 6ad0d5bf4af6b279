"""What happens, step by step, when parts of a cluster fail: the table of conditions, acted out."""
