"""The only folder that uses kopf."""
