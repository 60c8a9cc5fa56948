"""Bundles: manifest, files, packed form and verification."""
