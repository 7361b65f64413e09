"""What a run file, an artifact, a scheme and a family are. The standard library only; every other room builds on it."""
