"""gunicorn with the settings that a model server has, whatever it serves."""

from __future__ import annotations

from typing import Any

from gunicorn.app.base import BaseApplication

# Above the 60 s and the idle time of any proxy's pool, so that the proxy, not we, ends an idle connection.
KEEPALIVE = 120
# Below the 30 s between the platform's SIGTERM and its SIGKILL.
GRACE = 25


class HttpServer(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn on 127.0.0.1:`port`. A subclass gives the WSGI application in `load`, and hooks as `more` options."""

    def __init__(self, port: int, workers: int, threads: int, **more: Any) -> None:
        self._options: dict[str, Any] = {
            "bind": f"127.0.0.1:{port}",
            "workers": workers,
            "worker_class": "gthread",
            "threads": threads,
            "keepalive": KEEPALIVE,
            "graceful_timeout": GRACE,
            "timeout": 0,  # loading may take as long as the platform allows; the platform keeps that clock
            "loglevel": "warning",
            "proc_name": "clary-serving",
            "control_socket_disable": True,
            **more,
        }
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            if name in self.cfg.settings:  # older gunicorns have no control socket
                self.cfg.set(name, value)
