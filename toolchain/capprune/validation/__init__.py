"""Validation: what a bundle says beside the trained model, and the gates it must pass."""
