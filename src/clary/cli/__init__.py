"""The command line: parses arguments, calls `server` or the public API, prints."""
