"""A report in headless Chromium: no errors, no requests, no overflow, and a replay that moves."""

import shutil
from pathlib import Path

import pytest
from evaluation_folders import HORIZON_PS, write_evaluation

from mdsim.evaluation import report

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"),
]
SOFTWARE_GRAPHICS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
PICTURE = "() => document.querySelector('#replay-stage canvas').toDataURL()"
RECORD = """() => {
  window.seen = [];
  const state = document.querySelector("#replay-state");
  new MutationObserver(() => seen.push(state.textContent)).observe(state, { childList: true });
}"""
OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    write_evaluation(run / "inference" / "pre", [1.0, 2.0, 3.0, HORIZON_PS])
    write_evaluation(run / "inference" / "post", [HORIZON_PS] * 4)
    return report.report([run]).path


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=SOFTWARE_GRAPHICS)
        yield chromium
        chromium.close()


@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (360, "dark")])
def test_a_report_in_a_browser(browser, page_file, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    said, requested = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: requested.append(request.url))
    page.goto(page_file.as_uri())
    page.wait_for_selector("#replay-stage canvas")
    assert page.evaluate(OVERFLOW) <= 0
    state, slider = page.locator("#replay-state"), page.locator("#replay-frame")
    assert state.inner_text() == "frame 12 of 12, 1.100 ps, O0–H1: 1.76 Å", "the last frame is shown first"

    page.evaluate(RECORD)
    last = page.evaluate(PICTURE)
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("() => seen.length && document.querySelector('#replay-play').textContent === 'Play'")
    seen = page.evaluate("() => seen")
    assert [text.split(" of ")[0] for text in seen] == [f"frame {frame + 1}" for frame in range(12)]
    assert seen[1] == "frame 2 of 12, 0.100 ps, O0–H1: 0.96 Å"

    slider.focus()
    page.keyboard.press("Home")
    page.wait_for_timeout(300)
    assert page.evaluate(PICTURE) != last, "the picture follows the frame"
    page.get_by_role("button", name="Play").click()
    page.get_by_role("button", name="Pause").click()
    stopped = state.inner_text()
    page.wait_for_timeout(400)
    assert state.inner_text() == stopped
    page.get_by_label("Trajectory").select_option(index=3)
    assert "stable to the end" in page.locator("#replay-note").inner_text()
    assert said == []
    assert [url for url in requested if not url.startswith(("data:", "blob:"))] == [page_file.as_uri()]
    page.close()
