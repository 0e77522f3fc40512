"""The mathematics: plain torch, testable on tensors alone."""
