"""What to do next for a run: pure, without I/O, clock or value."""
