"""Commands of the operator's image besides serving."""
