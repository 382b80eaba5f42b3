"""Memory-efficient backpropagation through a tree of bijections. Names no layer."""
