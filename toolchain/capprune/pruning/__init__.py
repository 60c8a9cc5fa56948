"""Learned sparsity: supermask gates, their schedule and their statistics."""
