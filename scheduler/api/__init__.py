"""The users' API: what people, the CLI and programs ask of any scheduler."""
