"""Every page of the manual in headless Chromium, on a desktop and on a phone: no errors, no overflow, and a search.

`make docs-pictures` takes the manual that `make docs` built (`MDSIM_MANUAL`), and keeps a picture of each page
(`MDSIM_MANUAL_PICTURES`), to look at.
"""

import http
import http.server
import os
import shutil
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
from paths import ROOT

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("myst_nb")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"),
]
OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
BROKEN_IMAGES = "() => [...document.images].filter(image => !image.complete || !image.naturalWidth).map(i => i.src)"
WIDTHS = {"desktop": 1280, "phone": 390}


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/favicon.ico":  # which browsers ask for, and the manual does not have
            self.send_response(http.HTTPStatus.NO_CONTENT)
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def manual(tmp_path_factory) -> Path:
    """The folder of the built manual."""
    if built := os.environ.get("MDSIM_MANUAL"):
        return ROOT / built
    folder = tmp_path_factory.mktemp("manual")
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", "docs", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    return folder


@pytest.fixture(scope="module")
def address(manual):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(manual))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def _pages(manual: Path) -> list[str]:
    """All pages but those of source code."""
    return sorted(
        str(path.relative_to(manual)) for path in manual.rglob("*.html") if not path.is_relative_to(manual / "_modules")
    )


@pytest.mark.parametrize("device", WIDTHS)
def test_every_page(browser, manual, address, device):
    pages, faults = _pages(manual), []
    assert len(pages) > 30
    page = browser.new_page(viewport={"width": WIDTHS[device], "height": 900})
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("response", lambda answer: said.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
    page.on("request", lambda asked: None if asked.url.startswith((address, "data:")) else said.append(asked.url))
    for name in pages:
        said.clear()
        page.goto(f"{address}/{name}")
        if (overflow := page.evaluate(OVERFLOW)) > 0:
            faults.append(f"{name}: {overflow} px wider than the window")
        faults += [f"{name}: {what}" for what in (*said, *page.evaluate(BROKEN_IMAGES))]
        if folder := os.environ.get("MDSIM_MANUAL_PICTURES"):
            target = Path(folder) / device / f"{name.replace('/', '_')}.png"
            page.screenshot(path=target, full_page=not name.startswith(("api/", "configuration", "genindex")))
    page.close()
    assert faults == []


@pytest.mark.parametrize(
    ("words", "page_name"),
    [("boltzmann estimator", "method.html"), ("quick tour", "quick_tour.html"), ("parked", "glossary.html")],
)
def test_the_search_finds(browser, address, words, page_name):
    page = browser.new_page()
    page.goto(f"{address}/search.html?q={words.replace(' ', '+')}")
    page.wait_for_selector("#search-results ul.search li a")
    page.wait_for_function("() => !document.querySelector('.search-summary')?.textContent.includes('Searching')")
    found = page.eval_on_selector_all("#search-results ul.search li a", "links => links.map(link => link.href)")
    assert any(page_name in link for link in found), found
    page.close()


def test_a_notebook_can_be_downloaded(browser, address):
    page = browser.new_page()
    page.goto(f"{address}/notebooks/quick_tour.html")
    with page.expect_download() as download:
        page.get_by_role("link", name="quick_tour.ipynb").click()
    assert '"image/png"' in Path(download.value.path()).read_text(encoding="utf-8")
    page.close()
