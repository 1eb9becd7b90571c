"""Real stores of secrets for tests."""
