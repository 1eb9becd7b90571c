"""Where values come from. The only package of the operator that ever holds one, and never for long."""
