"""Text that others wrote, read and shown safely."""
