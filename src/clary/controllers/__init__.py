"""Make it so: per-key queues, observe -> plan -> act, back-off, health. Decisions are `core`'s; here they are carried
out. May import `store`, `objects` and below; not `api`, `engines` or `gateway`.
"""
