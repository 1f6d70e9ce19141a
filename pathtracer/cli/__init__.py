"""The command line: one file per command, each exposing a click command called `command`."""
