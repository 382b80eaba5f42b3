"""What an invertible network costs and how exactly it is inverted. Pictures (matplotlib) are imported by module."""

from .calls import FirstCalls, TreeCall
from .costs import Block, Inspection, inspect
from .reconstruction import LeafError, LeafNames, reconstruction_errors, relative_error
from .saved_bytes import ELSEWHERE, saved_by_block

__all__ = [
    "ELSEWHERE",
    "Block",
    "FirstCalls",
    "Inspection",
    "LeafError",
    "LeafNames",
    "TreeCall",
    "inspect",
    "reconstruction_errors",
    "relative_error",
    "saved_by_block",
]
