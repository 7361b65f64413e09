"""The processor that models run on: its cores, who else uses them, and what ran fastest."""
