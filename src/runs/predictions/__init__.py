"""Predictions for the user's own files: each task writes what it predicts in a format of its own."""
