"""Generated from proto/dray/api/v1: import its modules, never edit them."""
