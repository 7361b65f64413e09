"""Metrics: one file each, named in evaluations by the file's name.

A file gives `KINDS` (the kinds of rows it measures: chat, label, text), `Config`, and
`score(answers, rows, context)`, which returns one value a row (float64 [rows], or [rows, k]). The metric is the
mean over rows unless the file has its own `aggregate` (scores [repeats, rows, k] → metric [repeats]). A file
that needs more than answers has `check(rows, context)`, which refuses before a model answers the first row.
"""
