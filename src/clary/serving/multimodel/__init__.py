"""The model server of a multi-model container: many models, each in a process of its own, behind one port.

Four kinds of process. The *nursery* is the first: it has imported the framework and forks all others. The *keeper*
holds the list of models: it loads and unloads them, measures them, and brings back what crashed. The *front* is
gunicorn: it passes an invocation straight to its model's socket, so that the keeper and what is being loaded are in
nobody's way. A *model process* loads one model and answers one request at a time.
"""
