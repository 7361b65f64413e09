"""Who kept the log: one file a kind, asked record by record.

`matches(record)` tells whether a record is of this kind; `exchange(place, record)` gives what was asked and answered in
the words of OpenAI's API, or raises Unusable with the reason why there is nothing to learn from it.
"""
