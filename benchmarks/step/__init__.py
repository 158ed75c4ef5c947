"""Training steps, ours against others'."""
