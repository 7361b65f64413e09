"""Strict readers of files that anyone may have written, and processes with bounds on memory and time."""
