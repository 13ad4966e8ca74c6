"""The sliders of notebook 01 in JupyterLab, in a real browser: one is dragged, and the picture changes."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "01_generator_design.ipynb"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
STARTED_S, RUN_S = 60, 240  # patience with a busy machine

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: install the package chromium")


@contextmanager
def jupyterlab(folder):
    """Yield the address of a JupyterLab that serves a folder."""
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0", "--port-retries=0"]
    command += [f"--ServerApp.root_dir={folder}", "--IdentityProvider.token=", "--LabApp.news_url="]
    quiet = {"MICRO_PROFILE": "smoke", "MICRO_OUT": str(folder / "out"), "JUPYTER_CONFIG_DIR": str(folder / "config")}
    environment = {**os.environ, **quiet, "PYTHONPATH": str(NOTEBOOK.parents[1])}
    log = folder / "lab.log"
    with log.open("w") as file:
        server = subprocess.Popen(command, stderr=file, stdout=file, env=environment, start_new_session=True)
        try:
            yield _address(server, log)
        finally:
            os.killpg(server.pid, signal.SIGTERM)  # kernels among them
            server.wait(30)


def _address(server, log):
    deadline = time.monotonic() + STARTED_S
    while time.monotonic() < deadline and server.poll() is None:
        if found := re.search(r"http://(?:localhost|127\.0\.0\.1):\d+/", log.read_text()):
            return found[0]
        time.sleep(0.2)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()}")


@contextmanager
def page(address):
    """Yield a page of a headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            tab = browser.new_page(viewport={"width": 1600, "height": 1200})
            tab.set_default_timeout(STARTED_S * 1000)
            tab.goto(address)
            yield tab
        finally:
            browser.close()


def test_a_dragged_slider_changes_the_picture(tmp_path):
    shutil.copy(NOTEBOOK, tmp_path)
    with jupyterlab(tmp_path) as address, page(f"{address}lab/tree/{NOTEBOOK.name}?reset") as tab:
        tab.get_by_text("(ipykernel) | Idle").wait_for()  # before that the menu has no such entry
        tab.get_by_role("menuitem", name="Run", exact=True).click()
        tab.get_by_text("Run All Cells", exact=True).click()
        box = tab.locator(".widget-hbox", has=tab.locator(".widget-image")).first
        slider = box.locator(".widget-slider", has_text="grain_diameter_px")
        slider.wait_for(timeout=RUN_S * 1000)
        tab.get_by_text("(ipykernel) | Idle").wait_for(timeout=RUN_S * 1000)  # cells above move the slider till then
        slider.scroll_into_view_if_needed()
        pictures, readout = box.locator("img.widget-image"), slider.locator(".widget-readout")
        before = [picture.get_attribute("src") for picture in pictures.all()], readout.inner_text()
        handle = slider.locator(".noUi-handle").bounding_box()
        x, y = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2
        tab.mouse.move(x, y)
        tab.mouse.down()
        tab.mouse.move(x + 60, y, steps=6)
        tab.mouse.up()
        deadline = time.monotonic() + STARTED_S
        while pictures.first.get_attribute("src") == before[0][0] and time.monotonic() < deadline:
            tab.wait_for_timeout(200)
        after = [picture.get_attribute("src") for picture in pictures.all()], readout.inner_text()
    assert len(before[0]) == 2 and after[1] != before[1], "the slider did not move"
    assert all(new != old for new, old in zip(after[0], before[0], strict=True)), "the pictures stayed as they were"
