"""A model in use: what it is asked beside what it was tested on, how often it is still right, what to label next."""
