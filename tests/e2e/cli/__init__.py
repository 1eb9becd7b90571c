"""The command line against a real cluster."""
