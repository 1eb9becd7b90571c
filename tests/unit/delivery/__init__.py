"""Sealed delivery: what is sealed to a pod's key, and which request is answered."""
