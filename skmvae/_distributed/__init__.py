"""The processes of one fit and their slices of a minibatch."""
