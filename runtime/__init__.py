"""Run, evaluate and measure a shipped model; no torch."""
