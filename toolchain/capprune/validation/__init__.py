"""Validation: captions of a bundle compared with those of the trained model, and limits that it must meet."""
