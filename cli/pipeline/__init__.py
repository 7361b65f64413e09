"""A run file from its rows to proven files: planned, priced, run stage by stage, summed up and judged."""
