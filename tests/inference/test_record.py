from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edgefusion.inference.record import Record

_inputs = st.lists(
    st.sampled_from([f"/{d}/{n}" for d in "ab" for n in ("x.png", "X.tif", "x-2.png", "x-3.png", "y.png")])
)


def row(path: str, name: str, **values: Any) -> dict[str, Any]:
    facts = {"input": path, "name": name, "status": "done", "reason": "", "spacing_mm": "", "input_sha256": "00"}
    return {**facts, "made_by": "net", **values}


@given(first=_inputs, second=_inputs)
def test_names_are_unique_and_stay(first: list[str], second: list[str]) -> None:
    record = Record(Path("/nowhere"))
    before = record.names_for(first)
    record._rows = {path: row(path, name) for path, name in before.items()}
    after = record.names_for(second)
    assert before.items() <= after.items()
    assert len({name.casefold() for name in after.values()}) == len(after) == len({*first, *second})


def test_a_compressed_nifti_file_loses_both_its_endings() -> None:
    assert Record(Path("/nowhere")).names_for(["/a/x.nii.gz", "/a/y.b.NII"]) == {
        "/a/x.nii.gz": "x",
        "/a/y.b.NII": "y.b",
    }


def test_what_was_added_is_read_again(tmp_path: Path) -> None:
    rows = [
        row("/a/007.png", "007", presence_nerve=0.25, area_px_nerve=12),
        row('/a/NA, "x".png', "NA", presence_nerve=1.0, area_px_nerve=0, area_mm2_nerve=0.5),
        row("/a/bad.png", "bad", status="failed", reason="line one\nline two, and more"),
    ]
    Record(tmp_path).add(rows, ["png", "json"])
    again = Record(tmp_path)
    assert again.names_for([]) == {"/a/007.png": "007", '/a/NA, "x".png': "NA", "/a/bad.png": "bad"}
    assert [{**found, "formats": ""} for found in again._rows.values()] == [{**one, "formats": ""} for one in rows]
    assert again.names_in("json", "net") == {"007", "NA"}
    assert again.names_in("json", "other") == again.names_in("overlay", "net") == set()


def test_a_result_counts_while_its_files_and_its_origin_are_the_same(tmp_path: Path) -> None:
    record, facts = Record(tmp_path), row("/a/x.png", "x")
    record.add([facts], ["png"])
    assert record.kept(facts, ["png"]) is None
    (tmp_path / "x_mask.png").write_bytes(b"x")
    assert record.kept(facts, ["png"]) is not None
    assert record.kept(facts, ["png", "json"]) is None
    for key in ("input_sha256", "made_by", "spacing_mm"):
        assert record.kept({**facts, key: "other"}, ["png"]) is None, key
    record.add([{**facts, "status": "failed"}], ["png"])
    assert record.kept(facts, ["png"]) is None
