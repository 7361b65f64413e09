"""What a model is worth on rows: metrics with intervals, and when a bigger model should answer."""
