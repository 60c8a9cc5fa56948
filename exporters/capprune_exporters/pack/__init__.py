"""Entropy-code a bundle into one .capz file."""
