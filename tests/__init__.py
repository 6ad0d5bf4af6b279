"""Tests of dray and the machinery that runs them."""
