"""The 4-bit grids: what a weight is there, which method finds it, and what calibration knows of its layer."""
