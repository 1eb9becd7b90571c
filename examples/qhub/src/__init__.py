"""A service that signs a request."""
