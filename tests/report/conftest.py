"""A headless Chromium; tests that need one are skipped where there is none, unless it is required."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        if os.environ.get("RESIDUALIGN_REQUIRE_BROWSER"):
            pytest.fail("Chromium and ChromeDriver are required here and not installed")
        pytest.skip("needs Chromium and ChromeDriver")
    options = Options()
    options.binary_location = program
    profile = tmp_path_factory.mktemp("profile")
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--window-size=1280,1000",
        f"--user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield started
    finally:
        started.quit()


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Any:
    """Open a page given as text and wait until its charts are drawn."""
    from selenium.webdriver.support.ui import WebDriverWait

    def shown(page: str, scheme: str = "light") -> Any:
        path = tmp_path / "page <b> & co.html"
        path.write_text(page, encoding="utf-8")
        # a page that scrolls smoothly moves away from under the mouse
        features = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
        emulated = [{"name": name, "value": value} for name, value in features.items()]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": emulated})
        browser.get_log("browser")
        # another address first: the same one with another fragment would not be loaded anew
        browser.get("about:blank")
        browser.get(path.as_uri())
        WebDriverWait(browser, 60).until(
            lambda b: b.execute_script("return document.documentElement.dataset.ready") == "true"
        )
        return browser

    return shown
