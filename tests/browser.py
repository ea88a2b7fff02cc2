"""A headless Chromium for the tests of the report's page.

Debian's packages `chromium` and `chromium-driver`; axe-core, for what assistive technology meets, is unpacked
from npm by `make browser`. Where they are missing, the tests that need them are skipped, but fail in CI.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

AXE = Path(os.environ.get("AUGNET_AXE", Path.home() / ".cache/augnet/axe-core/package/axe.min.js"))
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")
SECONDS = 30


def missing(what: str) -> None:
    """Skip the test, or in CI fail it, for want of something that CI installs."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} is missing; `make browser` installs it")
    pytest.skip(f"{what} is missing")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser that is closed at the end."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not binary or not driver:
        missing("chromium or chromedriver")
    options = ChromeOptions()
    options.binary_location = binary
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = Service(driver)
    chrome = Chrome(options=options, service=service)
    try:
        yield Browser(chrome)
    finally:
        chrome.quit()


class Browser:
    """One page at a time, and what the tests ask of it."""

    def __init__(self, chrome: Chrome):
        self.chrome = chrome
        self.run = chrome.execute_script

    def open(self, path: str | Path, width: int = 1440, height: int = 1000) -> None:
        """Open a file from disk."""
        self.resize(width, height)
        self.chrome.get(Path(path).absolute().as_uri())
        self.chrome.execute_cdp_cmd("Page.bringToFront", {})

    def resize(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def media(self, scheme: str) -> None:
        """Show the page as someone sees it who prefers "dark" or "light"."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def find(self, css: str):
        return self.chrome.find_element(By.CSS_SELECTOR, css)

    def all(self, css: str) -> list:
        return self.chrome.find_elements(By.CSS_SELECTOR, css)

    def texts(self, css: str) -> list[str]:
        """The text of every such element, seen or not."""
        found = "return [...document.querySelectorAll(arguments[0])].map((element) => element.textContent)"
        return self.run(found, css)

    def set(self, css: str, value: object) -> None:
        """Give a control a value, as a person does."""
        self.run(
            "const control = document.querySelector(arguments[0]); control.value = arguments[1];"
            "control.dispatchEvent(new Event('input', { bubbles: true }))",
            css,
            str(value),
        )

    def click(self, css: str) -> None:
        self.run("document.querySelector(arguments[0]).click()", css)

    def wait(self, condition: str, *arguments: object):
        """Until a JavaScript expression holds."""
        return WebDriverWait(self.chrome, SECONDS, 0.05).until(
            lambda chrome: chrome.execute_script(f"return {condition}", *arguments), condition
        )

    def settle(self) -> None:
        """Until what was asked for is loaded and drawn."""
        self.chrome.execute_async_script("setTimeout(arguments[0], 250)")

    def pixels(self, css: str) -> list[int]:
        """The bytes of a canvas."""
        return self.run(
            "const canvas = document.querySelector(arguments[0]), copy = canvas.cloneNode();"
            "const context = copy.getContext('2d', { willReadFrequently: true });"
            "context.drawImage(canvas, 0, 0);"
            "return [...context.getImageData(0, 0, copy.width, copy.height).data]",
            css,
        )

    def complaints(self) -> list[str]:
        """Errors and warnings of the console since the last time."""
        return [entry["message"] for entry in self.chrome.get_log("browser")]

    def printed(self) -> bytes:
        """The page as PDF."""
        return base64.b64decode(self.chrome.execute_cdp_cmd("Page.printToPDF", {})["data"])

    def barriers(self) -> list[str]:
        """What axe-core finds that is serious or critical."""
        if not AXE.exists():
            missing("axe-core")
        # Through the debugger, which the page's own policy does not bind.
        self.chrome.execute_cdp_cmd("Runtime.evaluate", {"expression": AXE.read_text()})
        run = "axe.run({ preload: false }).then((found) => JSON.stringify(found.violations))"
        answer = self.chrome.execute_cdp_cmd("Runtime.evaluate", {"expression": run, "awaitPromise": True})
        return [
            f"{found['impact']}: {found['help']}: {[node['html'][:200] for node in found['nodes'][:3]]}"
            for found in json.loads(answer["result"]["value"])
            if found["impact"] in ("serious", "critical")
        ]
