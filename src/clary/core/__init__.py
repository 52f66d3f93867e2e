"""What Clary knows about hosting, as pure functions and frozen values.

Here belong resource records, the seams (Protocols), the endpoint planner, routing and placement. Standard library
only; no asyncio, no I/O, no clock: time is an argument. May import `clary.errors` and nothing else of Clary.
"""
