"""The training loop, its batches and the run folder that it writes."""
