"""What some minutes on one GPU can tell about this project; see ``python -m benchmarks.gpu --help``."""
