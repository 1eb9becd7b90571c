"""The Runkeys operator: gives the pods of a run their secrets for as long as they need them."""
