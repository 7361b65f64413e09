"""Documents as texts: read within limits, cut into passages, and what an answer says held to its passage."""
