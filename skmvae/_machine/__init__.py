"""All that knows the machine."""
