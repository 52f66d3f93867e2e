"""What runs containers: each engine is a module, found by entry point, independent of the others. Artifacts become
directories here. May import `objects`, `logs` and below.
"""
