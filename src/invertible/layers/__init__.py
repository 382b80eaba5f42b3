"""The bijections, one family a file, each with its backward rule beside it."""
