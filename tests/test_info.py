from __future__ import annotations

from edgefusion.config import CHANNELS
from edgefusion.data.sources import SUFFIXES
from edgefusion.inference.writers import FORMATS as WRITTEN
from edgefusion.info import FORMATS, as_text, facts
from edgefusion.models.names import MODELS, TITLES


def test_the_formats_are_those_of_the_readers_and_writers() -> None:
    assert [f".{name}" for name in FORMATS["read"]] == [*SUFFIXES, ".dcm"]
    assert FORMATS["write"] == list(WRITTEN)


def test_every_network_and_channel_is_told() -> None:
    text = as_text(facts())
    assert all(name in text and TITLES[name] in text for name in MODELS)
    assert all(channel in text for channel in CHANNELS)
