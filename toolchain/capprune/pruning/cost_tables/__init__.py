"""Measured tables of what a kept weight costs in time, one JSON a target."""
