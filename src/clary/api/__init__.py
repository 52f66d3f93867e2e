"""The control plane: generic create, describe, list, delete and tags over a Kind, and one module for each resource
family that has rules of its own. A request never calls an engine: it writes what is wanted, controllers make it so.
May import `store`, `wire`, `objects`, `logs` and below.
"""
