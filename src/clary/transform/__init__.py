"""What the process of one transform job does: read objects, send their records to the job's containers, write what
comes of them. The controller starts it, gives it containers through a file, and reads how it ended from another.
May import `objects`, `logs` and below; not `api`, `controllers`, `engines` or `gateway`.
"""
