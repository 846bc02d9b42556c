"""Bugs that are planted at run time, to prove that simulations find bugs of their kinds."""

from . import attempts, methods
from .registry import BUGS, planted

__all__ = ["BUGS", "attempts", "methods", "planted"]
