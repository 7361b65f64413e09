"""Text from decoders: options, sampling, constraints, guesses, and what came of it."""
