"""From a model's files to a loaded model."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from .app import Model
from .layout import Layout


def load_model(environment: Mapping[str, str]) -> Model:
    """Load what the environment names. Raises what the script raises, and LayoutError for files that form no model."""
    if "numpy" in sys.modules:  # imported before the fork, it would give every process the same random numbers
        sys.modules["numpy"].random.seed()
    layout = Layout.from_environment(environment)
    framework = environment.get("CLARY_SERVING_FRAMEWORK") or "none"
    if framework == "xgboost" and not layout.named and not layout.has_script:
        from .xgboost_algorithm import XGBoostModel

        return XGBoostModel(layout)
    from .script import ScriptModel

    return ScriptModel(layout, framework)
