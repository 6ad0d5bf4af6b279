"""Generated from proto/scheduler/store/v1: what the store's values hold."""
