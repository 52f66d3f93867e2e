"""What is told of a pull, from what Docker tells of its layers."""

from __future__ import annotations

from clary.engines.docker.pulling import Layers

MB = 1_000_000


def line(layer: str, status: str, current: int = 0, total: int = 0) -> dict[str, object]:
    return {"status": status, "id": layer, "progressDetail": {"current": current, "total": total} if total else {}}


def test_layers_are_added_up_and_nothing_is_said_twice() -> None:
    layers = Layers()
    told = [
        layers.note(each)
        for each in (
            {"status": "Pulling from team/model", "id": "1"},
            line("a", "Pulling fs layer"),
            line("a", "Downloading", 1 * MB, 100 * MB),
            line("a", "Downloading", 1 * MB + 5, 100 * MB),
            line("b", "Downloading", 0, 20 * MB),
            line("b", "Download complete"),
            line("a", "Download complete"),
            line("b", "Extracting", 10 * MB, 20 * MB),
            line("b", "Pull complete"),
            {"status": "Digest: sha256:12"},
        )
    ]
    assert told == [
        None,
        None,
        "pull 1 of 100 MB",
        None,
        "pull 1 of 120 MB",
        "pull 21 of 120 MB",
        "pull: unpack 0 of 120 MB",
        "pull: unpack 10 of 120 MB",
        "pull: unpack 20 of 120 MB",
        None,
    ]


def test_a_small_image_is_no_matter_of_megabytes() -> None:
    layers = Layers()
    assert layers.note(line("a", "Downloading", 5, 1000)) is None
    assert layers.note(line("a", "Download complete")) is None
