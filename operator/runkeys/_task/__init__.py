"""The basis of the modules that a task's own code uses."""
