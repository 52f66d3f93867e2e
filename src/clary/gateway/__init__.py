"""The front door and the hot path: no framework, no store. Authenticates, routes, forwards, maps answers back.
Keeps serving from its last route table while the control plane is away. May import `wire`, `objects` and below.
"""
