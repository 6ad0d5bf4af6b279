"""Tests of the repository itself: style, packaging, documents, and the checks' own bite."""
