"""First stage: captions, photos, vocabulary and cached features, and a synthetic data set of drawn scenes."""
