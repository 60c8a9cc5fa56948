"""First stage: captions, photos, vocabulary and cached features, and a data set that draws itself."""
