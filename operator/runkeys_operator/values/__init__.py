"""The only room of the operator that holds a secret's value, and never for long."""

from runkeys_operator.values.values import Values as Values
