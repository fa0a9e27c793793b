"""hrm report's page in a real headless Chromium: it opens without a complaint, and slider and keys move the board."""

import json
import os
import shutil
from pathlib import Path

import pytest

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
CHECKPOINT = GOLDEN / "checkpoint" / "tiny ACT-torch" / "Model gold fish" / "step_12"


@pytest.fixture(scope="module")
def page(hrm, tmp_path_factory):
    """The report of upstream's tiny golden checkpoint on its own test puzzles."""
    folder = tmp_path_factory.mktemp("report")
    facts = json.loads(hrm("report", "--checkpoint", CHECKPOINT, "--data-path", GOLDEN / "e2e" / "data", "--device", "cpu",
                           "--threads", "1", "--count", "12", "--explore", "6", "--json", "-", cwd=folder))
    path = folder / facts["file"]
    assert path.stat().st_size == facts["bytes"] < 4_000_000
    return path


@pytest.fixture(scope="module")
def browser():
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        reason = "chromium and chromedriver are not in PATH: bash scripts/setup_browser.sh installs them"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1300,1900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield driver
    driver.quit()


def open_page(browser, page):
    browser.get(page.as_uri())
    assert browser.get_log("browser") == []


def board(browser):
    return browser.execute_script("return [...document.querySelectorAll('#board .cell')].map(c => c.innerText.trim()).join('')")


def segment(browser):
    return int(browser.execute_script("return document.getElementById('board').dataset.segment"))


def press(browser, *keys):
    from selenium.webdriver.common.by import By

    for key in keys:
        browser.find_element(By.TAG_NAME, "body").send_keys(key)


def test_the_page_opens_without_errors_and_loads_nothing(browser, page):
    open_page(browser, page)
    assert len(board(browser)) == 81
    assert segment(browser) == 1
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in loaded if not name.startswith("data:")] == []
    images = browser.execute_script("return [...document.images].map(i => [i.naturalWidth, i.alt.length])")
    assert len(images) == 2 and all(width > 1000 and alt > 20 for width, alt in images)
    assert browser.execute_script("return document.querySelectorAll('.scroll tbody tr').length") == 11


def test_the_slider_moves_the_board(browser, page):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    open_page(browser, page)
    data = json.loads(browser.execute_script("return document.getElementById('data').textContent"))
    steps = data["models"][0]["puzzles"][0]["steps"]
    face = lambda answer: "".join(str(int(c, 36) - 1) if 2 <= int(c, 36) <= 10 else "–" for c in answer)
    slider = browser.find_element(By.ID, "segment")
    seen = [board(browser)]
    assert seen[0] == face(steps[0]["answer"])
    for k in range(1, len(steps)):
        slider.send_keys(Keys.ARROW_RIGHT)
        assert segment(browser) == k + 1
        assert board(browser) == face(steps[k]["answer"])
        seen.append(board(browser))
    assert len(set(seen)) > 1, "this checkpoint changes its mind on the way"
    assert browser.find_element(By.ID, "where").text == f"segment {len(steps)} of {len(steps)}"
    assert browser.get_log("browser") == []


def test_keys_move_segments_and_puzzles(browser, page):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    open_page(browser, page)
    first = board(browser)
    here = lambda: browser.execute_script("const c = document.getElementById('here'); return [c.getAttribute('cx'), c.getAttribute('cy')]")
    start = here()
    press(browser, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert segment(browser) == 3 and here() != start
    press(browser, Keys.END)
    assert segment(browser) == 16
    press(browser, Keys.ARROW_RIGHT)
    assert segment(browser) == 16, "there is nothing beyond the last"
    press(browser, Keys.HOME)
    assert segment(browser) == 1 and board(browser) == first
    press(browser, "n")
    assert board(browser) != first
    assert browser.find_element(By.ID, "puzzle").get_attribute("value") == "1"
    press(browser, "p")
    assert board(browser) == first
    assert "cells" in browser.find_element(By.ID, "status").text or "solved" in browser.find_element(By.ID, "status").text
    press(browser, "c")
    assert browser.execute_script("return document.querySelectorAll('.cell .sure').length") == 1, "only the legend's"
    assert browser.get_log("browser") == []


def test_a_picture_of_it_is_no_blank_sheet(browser, page, tmp_path):
    open_page(browser, page)
    light, dark = tmp_path / "light.png", tmp_path / "dark.png"
    browser.save_screenshot(str(light))
    browser.execute_script("document.getElementById('theme').click()")
    browser.save_screenshot(str(dark))
    assert light.stat().st_size > 40_000 and dark.stat().st_size > 40_000
    paper = "return getComputedStyle(document.body).backgroundColor"
    assert browser.execute_script(paper) == "rgb(22, 22, 26)"
    keep = os.environ.get("HRM_SCREENSHOTS")
    if keep:
        shutil.copy(light, Path(keep) / "report-light.png")
        shutil.copy(dark, Path(keep) / "report-dark.png")
