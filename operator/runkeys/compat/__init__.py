"""The same functions under the names of other systems, for code that is migrated from them."""
