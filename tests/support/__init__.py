"""Helpers of several tests: databases, servers, programs and samples."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The root of the checkout."""
