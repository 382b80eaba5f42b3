"""Compare runs: read their files and write one page."""
