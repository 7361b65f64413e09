"""Rows: read from files, checked, and made into what a model learns and is measured by."""
