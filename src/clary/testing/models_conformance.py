"""The suite of engines that hold models for containers that serve many."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from clary.core.containers import Container, ContainerSpec, ModelData
from clary.core.ports import Engine, HoldsModels
from clary.errors import LaunchFailure, Transient
from clary.testing.conformance import launch, stop


@dataclass(frozen=True, slots=True)
class ModelSpecimens:
    """Models for the suite of `core.ports.HoldsModels`, and a container to show them to."""

    container: ContainerSpec
    """Takes files (`takes_files`)."""
    model: ModelData
    file: str
    """The name of a file of the model."""
    missing: ModelData
    """Where there is nothing."""
    read: Callable[[Container, str], Awaitable[str | None]]
    """Reads a file at a path as a container sees it; None: there is none."""


async def holds_models_conformance(create: Callable[[], Awaitable[Engine]], specimens: ModelSpecimens) -> None:
    """Check that an engine keeps the promises of `core.ports.HoldsModels`, as `engine_conformance` does for all."""
    spec = specimens.container
    engine = await create()
    try:
        assert isinstance(engine, HoldsModels), "an engine that holds models says so"
        container = await launch(engine, spec)
        assert await engine.placed(spec.id) == {}, "at first there are no models"
        path = await _check_placed(engine, specimens, container)
        await _check_missing(engine, specimens)
    finally:
        await engine.close()
    engine = await create()
    try:
        assert isinstance(engine, HoldsModels)
        assert (await engine.placed(spec.id)).keys() == {"one"}, "files outlive the engine object"
        await _check_discarded(engine, specimens, container, path)
        await stop(engine, spec.id)
        assert await engine.placed(spec.id) == {}, "files end with their container"
        try:
            await engine.place(spec.id, "one", specimens.model, None)
        except Transient:
            pass
        else:
            raise AssertionError("nothing is shown to a container that has ended")
    finally:
        await engine.close()


async def _check_placed(engine: HoldsModels, specimens: ModelSpecimens, container: Container) -> str:
    first = await engine.place(container.id, "one", specimens.model, None)
    assert first.path == "/opt/ml/models/one/model" or first.path.endswith("/models/one/model"), (
        "models have their place"
    )
    assert first.size > 0, "a model has a size"
    path = f"{first.path}/{specimens.file}"
    content = await specimens.read(container, path)
    assert content, "the container sees the model's files"
    again = await engine.place(container.id, "one", specimens.model, None)
    assert again == first, "placing twice is placing once"
    assert await engine.placed(container.id) == {"one": first}, "what was placed is there"
    assert await specimens.read(container, path) == content, "and stays as it is"
    return path


async def _check_missing(engine: HoldsModels, specimens: ModelSpecimens) -> None:
    id = specimens.container.id
    try:
        await engine.place(id, "missing", specimens.missing, None)
    except LaunchFailure as error:
        assert error.step == "download", f"what is not there cannot be downloaded, not: {error.step}"
    else:
        raise AssertionError("placing what is not there raises LaunchFailure")
    assert (await engine.placed(id)).keys() == {"one"}, "a failed download leaves nothing behind"


async def _check_discarded(engine: HoldsModels, specimens: ModelSpecimens, container: Container, path: str) -> None:
    await engine.discard(container.id, "one")
    assert await engine.placed(container.id) == {}, "what was discarded is gone"
    assert await specimens.read(container, path) is None, "for the container too"
    await engine.discard(container.id, "one")
    await engine.discard(container.id, "never")
    await engine.discard("nobody", "one")
    await engine.place(container.id, "one", specimens.model, None)
    assert await specimens.read(container, path), "what was discarded can come back"
