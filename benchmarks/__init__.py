"""Compares workflow-store with other ways to store steps, in one interleaved run."""
