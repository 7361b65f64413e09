"""One file a verb: `<verb>_command.py` holds the click command `command`."""
