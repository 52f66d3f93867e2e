"""Asynchronous inference: what waits in the queue is given to instances, and the answers to S3. Decisions are
`core.asynchronous`'s.
"""
