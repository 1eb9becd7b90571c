"""From a key in the queue to the world as the run wants it: observe, plan, apply, write status."""
