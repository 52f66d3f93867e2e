"""AWS protocols, derived from botocore's service models at import.
Here belong the model, the codec, constraint checking, dispatch, signatures and event-stream frames. It knows nothing
of endpoints or any other resource. May import `clary.errors`.
"""
