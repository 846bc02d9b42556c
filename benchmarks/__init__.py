"""Compares the stores with what else one would use, all in one interleaved run."""
