"""The composition root: the roles that a process can have, and what each is built from. Nothing imports it but the
command line; it may import everything. `python -m clary.server control` or `gateway` is what the supervisor starts.
"""
