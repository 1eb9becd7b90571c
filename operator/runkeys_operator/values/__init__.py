"""The only rooms of the operator that hold a secret's value, and never for long."""
