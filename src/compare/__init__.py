"""Runs side by side: read what they left behind, and write one page."""
