"""The leader's work: rounds from snapshot to dispatch, and what keeps the store small."""
