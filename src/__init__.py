"""Invertible networks in imaging. Installed as `invertible_imaging`: `invertible`, `models` and `ct` only."""

__version__ = "0.1.0"
