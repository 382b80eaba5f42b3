"""Short programs that use the library."""
