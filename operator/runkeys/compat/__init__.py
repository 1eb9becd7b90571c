"""The same calls under the names that other systems gave them, for code that moves over."""
