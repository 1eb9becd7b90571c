"""All that knows kopf."""
