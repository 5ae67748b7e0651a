"""The command line: arguments, wiring, console."""
