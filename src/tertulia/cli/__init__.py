"""The command line: one short function per command, and the chat."""
