"""Caption many photos with timings, on a machine described in the results."""
