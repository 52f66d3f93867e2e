"""One module for each revision. A released revision is never edited: what changes the schema is a new one."""
