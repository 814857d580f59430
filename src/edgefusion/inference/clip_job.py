"""Clips and live sources as inputs of ``predict``: what is complete is kept, what fails is noted."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from edgefusion.data.live import open_live, public_name
from edgefusion.data.sources import open_clip
from edgefusion.errors import EdgeFusionError, StorageError
from edgefusion.files import sha256_of_file
from edgefusion.inference.clip_writers import CLIP_FORMATS, clip_paths, is_complete
from edgefusion.inference.inputs import FrameFile
from edgefusion.inference.job import Job
from edgefusion.inference.predict_clip import live_name, predict_clip, predict_live
from edgefusion.progress import say


def do_clip(job: Job, frame: FrameFile) -> dict[str, Any]:
    """Predict a clip, all of it or nothing."""
    formats = job.formats_of(frame.path, CLIP_FORMATS)
    facts = job.facts(frame, job.fingerprint(job.crop, job.smoothing))
    try:
        facts["input_sha256"] = sha256_of_file(frame.path)
        paths = [path for name in formats for path in clip_paths(name, job.record.folder, facts["name"])]
        kept = job.record.kept(facts, formats, paths)
        if kept and all(is_complete(path, kept["frames"]) for path in paths):
            return {**kept, "status": "kept"}
        facts |= predict_clip(
            open_clip(frame.path),
            job.predictor,
            job.record.folder,
            facts["name"],
            formats,
            spacing=frame.spacing,
            crop=job.crop,
            smoothing=job.smoothing,
        )
    except StorageError:
        raise
    except (EdgeFusionError, OSError) as error:
        facts |= {"status": "failed", "reason": str(error)}
    job.tell(facts)
    job.record.add([facts], formats)
    return facts


def do_live(job: Job, url: str) -> dict[str, Any]:
    """Predict a live source until it ends or Ctrl-C; every call is a recording of its own."""
    formats = job.formats_of(Path(url), CLIP_FORMATS)
    with open_live(url) as source:
        facts = job.facts(FrameFile(Path(url), None), job.fingerprint(job.crop, job.smoothing))
        began = datetime.now()
        # No other recording may be lost where two begin at once, or the clock was set back.
        while job.record.has(live_name(began)):
            began += timedelta(seconds=1)
        facts |= {"input": f"{public_name(url)} at {began:%Y-%m-%dT%H:%M:%S}", "name": live_name(began)}
        facts |= predict_live(
            source,
            job.predictor,
            job.record.folder,
            facts["name"],
            formats,
            crop=job.crop,
            smoothing=job.smoothing,
        )
    job.record.add([facts], formats)
    say(f"{facts['name']}: {facts['frames']} frames, {facts['dropped']} dropped, {facts['damaged']} damaged.")
    return facts
