"""Metrics: one file each, named in evaluations by the file's name.

A file gives `KINDS` (the kinds of rows it measures: chat, label, text), `SHARE` (whether it is a share from 0 to 1),
`HIGHER_IS_BETTER` (its direction, which gates, ratios and the choice of a best file go by), `Config`, and
`score(answers, rows, context)`, which returns one value a row (float64 [rows], or [rows, k]). The metric is the
mean over rows unless the file has its own `aggregate` (scores [repeats, rows, k] → metric [repeats]). A file
that needs more than answers has `check(rows, context)`, which refuses before a model answers the first row.
"""
