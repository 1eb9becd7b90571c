"""The process itself: health, logs, metrics, hardening."""
