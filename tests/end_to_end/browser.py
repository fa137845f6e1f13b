"""Label Studio's pages in a headless Chromium."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.expected_conditions import presence_of_element_located
from selenium.webdriver.support.wait import WebDriverWait

from integrations.label_studio.server import RunningLabelStudio

SECONDS = 60
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1500,1160",
)


@contextmanager
def logged_in_browser(label_studio: RunningLabelStudio, profile: Path) -> Iterator[Chrome]:
    """Open a browser with a profile of its own and log in through the page, as a person does."""
    options = ChromeOptions()
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    # Named outright, or selenium would look for a driver in the network.
    options.binary_location = shutil.which("chromium") or "chromium"
    browser = Chrome(options, ChromeService(shutil.which("chromedriver") or "chromedriver"))
    try:
        browser.get(f"{label_studio.url}/user/login/")
        find(browser, "input[name=email]").send_keys(label_studio.account.email)
        find(browser, "input[name=password]").send_keys(label_studio.account.password)
        find(browser, "button[type=submit]").click()
        WebDriverWait(browser, SECONDS).until(lambda page: "/user/login" not in page.current_url)
        yield browser
    finally:
        browser.quit()


def find(browser: Chrome, selector: str) -> WebElement:
    """Wait for the first element that a CSS selector matches."""
    return WebDriverWait(browser, SECONDS).until(presence_of_element_located((By.CSS_SELECTOR, selector)))


def wait_for(browser: Chrome, script: str) -> Any:
    """Wait until a JavaScript expression is truthy, and return its value."""
    return WebDriverWait(browser, SECONDS).until(lambda page: page.execute_script(f"return {script}"))
