"""The Docker engine: models run as containers of any engine that speaks Docker's API. Images, networks and the
containers themselves; what it shares with the process engine (artifacts, instance types, logs) lies one level up.
"""
