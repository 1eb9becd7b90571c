"""The only folder of the operator that holds secret values, and never for long."""

from runkeys_operator.values.values import Values as Values
