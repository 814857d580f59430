"""The page in a real browser: what a person sees, does, and is told."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.skipif(_CHROMIUM is None, reason="no chromium on this machine"),
    pytest.mark.filterwarnings("ignore"),
]

_OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=_CHROMIUM, args=list(_OPTIONS))
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Browser, server: Any) -> Iterator[Page]:
    """The page with its example read; whatever the browser complains of fails the test."""
    opened = browser.new_page(viewport={"width": 1280, "height": 800})
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.goto(server.url)
    expect(opened.locator("#position")).to_have_text("1 / 24", timeout=20_000)
    yield opened
    opened.close()
    assert [text for text in complaints if "Failed to load resource" not in text] == []


def _ink(page: Page, figure: int = 0) -> np.ndarray[Any, Any]:
    """The pixels of a canvas, red, green, blue."""
    shot = page.locator("#panes canvas").nth(figure).screenshot()
    return np.asarray(cv2.imdecode(np.frombuffer(shot, np.uint8), cv2.IMREAD_COLOR))[..., ::-1].astype(int)


def _magenta(page: Page) -> int:
    """How many pixels a contour of the first label takes."""
    red, green, blue = np.moveaxis(_ink(page), 2, 0)
    return int(((red > 180) & (green < 120) & (blue > 180)).sum())


def _upload(page: Page, name: str, body: bytes) -> None:
    page.set_input_files("#file", {"name": name, "mimeType": "application/octet-stream", "buffer": body})


def _opened(page: Page, body: bytes) -> None:
    """Upload a frame and wait until it is shown."""
    _upload(page, "spot.png", body)
    expect(page.locator("#source")).to_contain_text("spot.png")
    expect(page.locator("#verdict")).to_contain_text("found")
    page.wait_for_timeout(150)


def _download(page: Page, kind: str) -> tuple[str, bytes]:
    with page.expect_download() as waiting:
        page.click(f"[data-export={kind}]")
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


def test_a_first_visitor_sees_the_example(page: Page) -> None:
    expect(page.locator("#source")).to_contain_text("simulated neck")
    expect(page.locator(".notice")).to_contain_text("not for diagnosis")
    assert np.ptp(_ink(page)) > 100


def test_an_upload_is_outlined_and_exported(page: Page, spot_png: bytes, spot: Any) -> None:
    _upload(page, "Doe_Jane.png", spot_png)
    expect(page.locator("#verdict")).to_have_text(re.compile(r"Nerve found, area \d+ px\."))
    expect(page.locator("#source")).to_contain_text("Doe_Jane.png")
    expect(page.locator("#clip")).to_be_hidden()
    assert _magenta(page) > 100
    page.uncheck("#contours")
    page.wait_for_timeout(200)
    assert _magenta(page) == 0

    name, body = _download(page, "mask")
    assert name == "edgefusion-0001-mask.png"
    mask = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED)
    assert mask.shape == spot.shape
    assert mask[48, 64] == 1
    _, body = _download(page, "overlay")
    assert cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED).shape == (*spot.shape, 3)
    _, body = _download(page, "json")
    answer = json.loads(body)
    assert answer["frames"][0]["labels"][0]["area_px"] == np.count_nonzero(mask)
    assert answer["notice"] == "research use, not for diagnosis"
    expect(page.locator("[data-export=seg]")).to_be_disabled()


def test_an_unsure_network_says_so_and_draws_nothing(page: Page, empty_png: bytes) -> None:
    _opened(page, empty_png)
    expect(page.locator("#verdict")).to_have_text("No nerve found with confidence.")
    expect(page.locator(".card")).to_contain_text("No nerve found with confidence")
    assert _magenta(page) == 0


def test_a_frame_unlike_what_a_network_knows_is_called_so(
    page: Page, spot_png: bytes, encode: Callable[..., bytes]
) -> None:
    page.select_option("#model", "two")
    _opened(page, spot_png)
    expect(page.locator(".strange")).to_have_count(0)
    _upload(page, "noise.png", encode(np.random.default_rng(0).integers(0, 256, (96, 128), dtype=np.uint8)))
    expect(page.locator(".strange")).to_contain_text("Unlike what this model knows")
    expect(page.locator("#verdict")).to_contain_text("unlike what this model knows")
    page.select_option("#other", "one")
    # The other network cannot tell.
    expect(page.locator("#cards .card")).to_have_count(3)
    expect(page.locator(".strange")).to_have_count(1)
    expect(page.locator(".strange")).to_contain_text("Unlike what two knows")


def test_layers_and_channels(page: Page, spot_png: bytes) -> None:
    _opened(page, spot_png)
    before = _ink(page)
    page.locator("#probability").fill("80")
    expect(page.locator("output[for=probability]")).to_have_text("80 %")
    page.wait_for_timeout(500)
    middle = np.array(before.shape[:2]) // 2
    over = _ink(page)[middle[0], middle[1]]
    assert over[2] < before[middle[0], middle[1], 2] - 30, "yellow lies over the white spot"
    page.check("input[name=view][value=channels]", force=True)
    expect(page.locator("figcaption").nth(2)).to_be_visible()
    page.wait_for_timeout(1500)
    assert all(np.ptp(_ink(page, figure)) > 50 for figure in range(3))


def test_scrubbing_stepping_and_playing(page: Page) -> None:
    page.locator("#scrub").fill("9")
    expect(page.locator("#position")).to_have_text("10 / 24")
    expect(page.locator("#scrub")).to_have_attribute("aria-valuetext", re.compile("Frame 10 of 24"))
    page.click("#next")
    expect(page.locator("#position")).to_have_text("11 / 24")
    box = page.locator("#curve").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 0.98 * box["width"], box["y"] + 10)
    expect(page.locator("#position")).to_have_text("24 / 24")
    page.locator("#scrub").fill("20")
    page.click("#play")
    expect(page.locator("#play")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#position")).to_have_text("24 / 24", timeout=10_000)
    expect(page.locator("#play")).to_have_text("Play")


def test_what_is_found_along_a_clip_is_summed_up(page: Page) -> None:
    expect(page.locator("#position")).to_have_text("1 / 24", timeout=20_000)
    cells = page.locator("#profile td")
    expect(cells.nth(0)).to_have_text(re.compile(r"^\d+ of 24$"))
    smallest, largest, ratio = (float(cells.nth(row).inner_text()) for row in (1, 2, 3))
    assert 0 < smallest <= largest
    assert ratio == pytest.approx(largest / smallest, rel=0.06)
    before = page.locator("#curve").evaluate("canvas => canvas.toDataURL()")
    page.locator("label", has=page.locator("input[value=area]")).click()
    expect(page.locator("#curve-legend")).to_contain_text("Curve: area")
    assert page.locator("#curve").evaluate("canvas => canvas.toDataURL()") != before


_FOCUSED = """() => {
  const one = document.activeElement;
  return [one.id || one.textContent.trim(), getComputedStyle(one).outlineStyle, one.type || one.tagName];
}"""


def test_by_keyboard_alone(page: Page) -> None:
    asked: list[str | None] = []
    # From the start: the browser is told to hand choosers over in its own time.
    page.on("filechooser", lambda chooser: asked.append(chooser.element.get_attribute("id")))
    page.keyboard.press("End")
    expect(page.locator("#position")).to_have_text("24 / 24")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#position")).to_have_text("23 / 24")
    page.keyboard.press("Home")
    page.keyboard.press(" ")
    expect(page.locator("#play")).to_have_text("Pause")
    page.keyboard.press(" ")
    expect(page.locator("#play")).to_have_text("Play")
    page.keyboard.press("c")
    expect(page.locator("#contours")).not_to_be_checked()
    page.keyboard.press("p")
    expect(page.locator("#probability")).to_have_value("70")
    page.keyboard.press("v")
    expect(page.locator("#panes")).to_have_attribute("data-view", "channels")
    page.keyboard.press("o")
    page.wait_for_timeout(300)
    assert asked == ["file"]
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        name, ring, kind = page.evaluate(_FOCUSED)
        reached.append(name)
        # A radio button is drawn by the label around it, and so is its ring.
        assert ring == "solid" or kind in ("BODY", "radio"), name
    assert {"open", "play", "scrub", "contours", "model", "other", "spacing", "Mask", "JSON"} <= set(reached)


def test_a_wrong_file_is_refused_in_words(page: Page, spot_png: bytes) -> None:
    _upload(page, "letter.html", b"<!doctype html><p>no frame")
    expect(page.locator("#alert-text")).to_contain_text("Give a picture")
    expect(page.locator("#source")).to_contain_text("simulated neck")
    page.click("#alert-close")
    expect(page.locator("#alert")).to_be_hidden()
    _upload(page, "cut.png", spot_png[:120])
    expect(page.locator("#alert-text")).to_contain_text("damaged")
    _opened(page, spot_png)
    expect(page.locator("#alert")).to_be_hidden()


_DROP = """([name, bytes]) => {
  const files = new DataTransfer();
  files.items.add(new File([new Uint8Array(bytes)], name));
  for (const kind of ["dragover", "drop"]) {
    document.body.dispatchEvent(new DragEvent(kind, { dataTransfer: files, bubbles: true, cancelable: true }));
  }
}"""


def test_a_file_is_dropped_on_it(page: Page, spot_png: bytes) -> None:
    page.evaluate(_DROP, ["dropped.png", list(spot_png)])
    expect(page.locator("#source")).to_contain_text("dropped.png")
    expect(page.locator("#drop")).to_be_hidden()


def test_two_networks_side_by_side(page: Page, spot_png: bytes) -> None:
    _opened(page, spot_png)
    page.select_option("#other", "two")
    expect(page.locator(".card")).to_have_count(3)
    expect(page.locator("#verdict")).to_contain_text("one: Nerve found")
    dashes = page.locator(".card line").evaluate_all("all => all.map(one => one.getAttribute('stroke-dasharray'))")
    assert len(set(dashes)) == 3, "contours are told apart by their dashes, too"


def test_a_dicom_file_gives_a_segmentation(
    page: Page, spot: Any, write_ultrasound: Callable[..., Path], tmp_path: Path
) -> None:
    region = {"left": 0, "top": 0, "right": spot.shape[1] - 1, "bottom": len(spot) - 1}
    path = write_ultrasound(tmp_path / "cine.dcm", np.stack([spot, spot]), regions=[region])
    page.set_input_files("#file", path)
    expect(page.locator("#source")).to_contain_text("0.200 × 0.100 mm a pixel")
    expect(page.locator("#position")).to_have_text("1 / 2")
    expect(page.locator("#verdict")).to_have_text(re.compile(r"area [\d.]+ mm²"))
    expect(page.locator("#measures")).to_contain_text("Largest diameter")
    name, body = _download(page, "seg")
    assert (name, body[128:132]) == ("edgefusion-seg.dcm", b"DICM")


def test_the_live_view(page: Page) -> None:
    page.click("#live")
    page.click("#camera")
    expect(page.locator("#live-delay")).to_have_text(re.compile(r"\d+ ms"), timeout=15_000)
    expect(page.locator("[data-export=mask]")).to_be_disabled()
    page.click("#stop")
    expect(page.locator("#source")).to_contain_text("simulated neck")


def test_a_token_is_asked_for(browser: Browser, start: Callable[..., Any]) -> None:
    token = "a-token-that-is-long-enough"
    with start(token=token) as server:
        page = browser.new_page()
        page.goto(server.url)
        page.fill("#token", "wrong")
        page.keyboard.press("Enter")
        page.fill("#token", token)
        page.keyboard.press("Enter")
        expect(page.locator("#source")).to_contain_text("simulated neck", timeout=15_000)
        page.close()


_NAMELESS = """() => [...document.querySelectorAll('button, input, select, canvas, summary')].filter((one) =>
  one.getClientRects().length && one.getAttribute('aria-hidden') !== 'true' && !(one.getAttribute('aria-label')
  || (one.labels && one.labels.length) || one.textContent.trim())).map((one) => one.outerHTML)"""

_FAINT = """() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const colour = parts(getComputedStyle(at).backgroundColor);
      if (colour[3] === undefined || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const one of document.querySelectorAll('body *')) {
    const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !one.getClientRects().length || one.disabled || one.closest('svg')) continue;
    const [a, b] = [light(parts(getComputedStyle(one).color)), light(ground(one))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) found.push(`${one.tagName} ${one.textContent.trim()} ${contrast.toFixed(2)}`);
  }
  return found;
}"""


@pytest.mark.parametrize("size", [(1440, 900), (1024, 768), (390, 844)])
def test_everybody_can_use_it(page: Page, size: tuple[int, int]) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.click("#live")
    for details in page.locator("summary").all():
        details.click()
    assert page.evaluate(_NAMELESS) == []
    assert page.evaluate(_FAINT) == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "nothing runs out sideways"
    ids = page.locator("[id]").evaluate_all("all => all.map(one => one.id)")
    assert len(ids) == len(set(ids))
    assert page.locator("#verdict[role=status]").count() == page.locator("#alert[role=alert]").count() == 1
    assert page.get_by_role("main").count() == 1
    assert page.get_by_role("heading", level=1).count() == 1
    small = page.locator("button:visible, select:visible").evaluate_all(
        "all => all.filter(one => one.getBoundingClientRect().height < 32).map(one => one.outerHTML)"
    )
    assert small == []
