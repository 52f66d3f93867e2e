"""The short way of plain invocations, compiled: `way.pyx` and what it includes, one idea in each file.

Nothing of the gateway but what `clary.gateway.short` shows belongs here, and nothing that the long way does not do.
"""
