"""The model server that runs inside a model's own environment (script mode). It imports nothing else of Clary,
because nothing else of Clary is installed there.
"""
