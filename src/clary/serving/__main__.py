"""`python -m clary_serving serve`: the same one word that a container gets."""

from __future__ import annotations

import sys

from .server import serve

if __name__ == "__main__":
    if sys.argv[1:] != ["serve"]:
        sys.exit("usage: python -m clary_serving serve")
    serve()
