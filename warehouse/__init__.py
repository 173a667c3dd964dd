"""The storage layer: the only code that knows files."""
