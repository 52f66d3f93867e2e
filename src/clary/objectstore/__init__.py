"""The bundled object store: buckets and objects as plain files under one folder, and nothing of HTTP.

What is not a plain file (metadata, uploads in parts) lives beside the buckets in `.clary`. Every state is on disk and
every change is one rename, so that several processes serve one folder and a kill at any moment leaves whole objects.
May import `clary.errors`.
"""
