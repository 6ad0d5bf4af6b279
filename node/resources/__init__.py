"""What the machine has, what it and its tasks use, and what is running short."""
