"""Rows: in the network's units, their statistics, their fingerprints."""
