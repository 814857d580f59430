"""Fill a cache with the channels of a study's frames under many recipes, for ``kills.py``.

python benchmarks/fill_cache.py STUDY CACHE
"""

from __future__ import annotations

import sys
from pathlib import Path

from edgefusion.channels.recipe import cached_stacks
from edgefusion.config import ChannelRecipe
from edgefusion.data.study import Study

if __name__ == "__main__":
    study = Study.load(sys.argv[1])
    for number in range(40):
        recipe = ChannelRecipe(("raw", "dpad", "edges"), 96, 144, time=1.0 + number)
        cached_stacks(study, list(study.frames["frame_id"]), recipe, Path(sys.argv[2]))
