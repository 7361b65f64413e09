"""The fault server as a process."""

from .server import main

main()
