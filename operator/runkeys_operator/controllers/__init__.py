"""A controller for each kind, and the queue that they share."""
