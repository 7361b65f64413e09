"""The checks of a certificate, one file each.

A check is a module with `TASKS`, the task kinds it applies to, `CAUSE`, what is wrong when it cannot even be run, and
`check(subject) -> list[Check]`: it looks at the packed file in its engine, compares it with the float model's
reference, and names the cause when they differ.
"""
