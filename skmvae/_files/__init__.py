"""All that is written to files."""
