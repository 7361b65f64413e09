"""Calls of a language model that somebody logged, as rows."""
