"""Where a model is measured: a file for each kind of target, which its address begins with.

A kind has `check(place)`, which refuses an address before anything is done; `NEEDS_MODEL`, whether it measures a model
that lies here; and `profile(place, asked, say)`, which measures there and gives what `asdict` makes of a `Profile`.
"""
