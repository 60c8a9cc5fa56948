"""Evaluation: caption metrics, intervals, health, parity with the trained model, gates, results."""
