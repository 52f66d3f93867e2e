"""What tests need in place of the outside world: time that jumps, a store in memory, an engine made of words; and the
suites that every engine must pass, and every engine that holds models.
"""

from clary.testing.clock import EPOCH, in_virtual_time, now, until, virtual_runner
from clary.testing.conformance import LAUNCH_STEPS, Specimens, engine_conformance
from clary.testing.fake_engine import FakeEngine, Script, running
from clary.testing.memory import MemoryQueue, MemoryStore
from clary.testing.models_conformance import ModelSpecimens, holds_models_conformance

__all__ = [
    "EPOCH",
    "LAUNCH_STEPS",
    "FakeEngine",
    "MemoryQueue",
    "MemoryStore",
    "ModelSpecimens",
    "Script",
    "Specimens",
    "engine_conformance",
    "holds_models_conformance",
    "in_virtual_time",
    "now",
    "running",
    "until",
    "virtual_runner",
]
