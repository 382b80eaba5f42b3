"""The page in a real Chromium: it sorts, filters, answers the pointer and the keyboard, and asks for nothing."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from src.compare.page import build_page
from src.compare.sources import find_sources
from src.runs.folder import RunFolder, picture_name
from tests.compare.folders import summary, write_picture, write_run

selenium = pytest.importorskip("selenium", reason="selenium is not installed (requirements-dev.txt)")
from selenium import webdriver  # noqa: E402
from selenium.webdriver import ActionChains, Keys  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.select import Select  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None,
        reason="no Chromium with its driver: apt-get install chromium chromium-driver",
    ),
]

EVIL = "</script><img src=x onerror=alert(1)>"
# name, test/psnr, peak memory in GiB, seed
RUNS = [("alpha", 22.5, 3.0, 0), ("beta", 21.0, 1.0, 1), ("gamma", 20.0, 1.0, 0), ("delta", None, 4.0, 2)]
STEPS = range(0, 60, 10)


def curve(number: int) -> list[dict[str, float]]:
    return [{"step": step, "val/psnr": 10.0 + number + step / 10, "train/loss": 2.0 / (step + 1)} for step in STEPS]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("compare")
    for number, (name, psnr, memory_gib, seed) in enumerate(RUNS):
        run = write_run(
            folder / name,
            curve(number),
            model="unet" if name == "beta" else "iunet",
            seed=seed,
            metrics={"test/psnr": psnr, "val/psnr": 15.0 + number, "train/loss": 0.1},
            peak_memory_bytes=int(memory_gib * 2**30),
            config={**summary()["config"], "seed": seed, **({"only": {"delta": 1}} if name == "delta" else {})},
            experiment=EVIL if name == "delta" else "ct_postproc",
        )
        for epoch in range(3):
            write_picture(RunFolder(run).images / picture_name("val-000", epoch), seed=10 * number + epoch)
    path = folder / "page.html"
    path.write_text(build_page(find_sources([str(folder)])))
    return path.as_uri()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    profile = tmp_path_factory.mktemp("profile")
    for flag in (
        *("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "no-first-run", "disable-sync"),
        *("disable-background-networking", "disable-component-update", f"user-data-dir={profile}"),
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium: Any, page: str) -> Iterator[Any]:
    """The page on a desktop's screen, freshly loaded; afterwards, that it was quiet."""
    resize(chromium, 1400)
    chromium.get("about:blank")
    # What the browser's own start page asked for.
    chromium.get_log("performance")
    chromium.get(page)
    yield chromium
    assert [entry["message"] for entry in chromium.get_log("browser")] == []
    events = [json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert page in asked
    assert [url for url in asked if url != page and not url.startswith("data:")] == []


def resize(driver: Any, width: int, scheme: str = "light") -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def one(browser: Any, selector: str) -> Any:
    return browser.find_element(By.CSS_SELECTOR, selector)


def texts(browser: Any, selector: str) -> list[str]:
    return [element.text for element in browser.find_elements(By.CSS_SELECTOR, selector)]


def names(browser: Any) -> list[str]:
    return texts(browser, "#runs-table tbody .name")


def choose(browser: Any, selector: str, value: str) -> None:
    Select(one(browser, selector)).select_by_value(value)


def set_range(browser: Any, selector: str, value: float) -> None:
    script = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))"
    browser.execute_script(script, one(browser, selector), value)


def test_a_header_sorts_both_ways_and_unknown_values_come_last(browser: Any) -> None:
    assert names(browser) == ["alpha", "beta", "delta", "gamma"]
    header = '#runs-table button[data-sort="test/psnr"]'
    one(browser, header).click()
    # The best first: more decibels are better.
    assert names(browser) == ["alpha", "beta", "gamma", "delta"]
    one(browser, header).send_keys(Keys.ENTER)
    assert names(browser) == ["gamma", "beta", "alpha", "delta"]
    assert one(browser, '#runs-table th[aria-sort="ascending"] button').get_attribute("data-sort") == "test/psnr"
    one(browser, '#runs-table button[data-sort="memory"]').click()
    assert names(browser) == ["beta", "gamma", "alpha", "delta"]


def test_the_best_of_a_column_is_marked_among_the_runs_that_are_shown(browser: Any) -> None:
    assert "22.50" in texts(browser, "#runs-table .best")
    one(browser, '[aria-label="show alpha"]').click()
    assert "21.00" in texts(browser, "#runs-table .best") and "22.50" not in texts(browser, "#runs-table .best")


def test_the_filter_filters_everything(browser: Any) -> None:
    field = one(browser, "#filter")
    for words, expected in {
        "iunet seed=0": ["alpha", "gamma"],
        "psnr>20.5 memory<=1": ["beta"],
        "model=unet": ["beta"],
        "</SCRIPT>": ["delta"],
        "nothing": [],
    }.items():
        field.clear()
        field.send_keys(words)
        assert names(browser) == expected
        assert one(browser, "#filter-state").text == f"{len(expected)} of 4"
        assert texts(browser, "#legend button") == expected
    field.clear()
    field.send_keys("speed>3")
    assert one(browser, "#filter-state").text == "there is no column 'speed'"


def test_all_metrics_and_absent_keys_are_shown_on_demand(browser: Any) -> None:
    assert "train/loss" not in texts(browser, "#runs-table thead button")
    one(browser, "#all-metrics").click()
    assert "train/loss" in texts(browser, "#runs-table thead button")
    keys = "#differences-table tbody th"
    assert texts(browser, keys) == ["seed", "only.delta"]
    one(browser, "#shared-keys").click()
    assert texts(browser, keys) == ["seed"]
    # Only alpha and gamma are left: they have the same configuration.
    one(browser, "#filter").send_keys("seed=0")
    assert texts(browser, keys) == []


def test_pointing_at_a_curve_shows_run_step_and_value(browser: Any) -> None:
    plot = one(browser, "#curve-plot")
    browser.execute_script("arguments[0].scrollIntoView()", plot)
    ActionChains(browser).move_to_element_with_offset(plot, -plot.size["width"] // 2 + 70, 0).perform()
    assert one(browser, "#curve-plot .tip strong").text == "step 0"
    rows = [row.split() for row in texts(browser, "#curve-plot .tip tr")]
    assert rows == [["delta", "13"], ["gamma", "12"], ["beta", "11"], ["alpha", "10"]]
    ActionChains(browser).move_to_element(one(browser, "#title")).perform()
    assert not one(browser, "#curve-plot .tip").is_displayed()


def test_the_arrow_keys_move_along_the_steps(browser: Any) -> None:
    plot = one(browser, "#curve-plot")
    for key, step in ((Keys.ARROW_RIGHT, 0), (Keys.ARROW_RIGHT, 10), (Keys.ARROW_RIGHT, 20), (Keys.ARROW_LEFT, 10)):
        plot.send_keys(key)
        assert one(browser, "#curve-plot .tip strong").text == f"step {step}"
    plot.send_keys(Keys.ESCAPE)
    assert not one(browser, "#curve-plot .tip").is_displayed()


def test_the_legend_switches_a_run_off_everywhere(browser: Any) -> None:
    assert len(browser.find_elements(By.CSS_SELECTOR, '#curve-plot path[data-run="beta"]')) == 1
    button = one(browser, '[data-legend="1"]')
    assert button.text == "beta"
    button.click()
    assert one(browser, '[data-legend="1"]').get_attribute("aria-pressed") == "false"
    assert browser.find_elements(By.CSS_SELECTOR, '[data-run="beta"]') == []
    assert texts(browser, "#gallery figcaption") == ["alpha", "delta", "gamma"]
    assert one(browser, "#runs-table .off .name").text == "beta"
    one(browser, '[data-legend="1"]').click()
    assert len(browser.find_elements(By.CSS_SELECTOR, '#cost-plot [data-run="beta"]')) == 1


def test_metric_scale_smoothing_and_steps_redraw_the_curves(browser: Any) -> None:
    def drawn() -> str:
        return one(browser, '#curve-plot path[data-run="alpha"]').get_attribute("d")

    seen = [drawn()]
    choose(browser, "#metric", "train/loss")
    seen.append(drawn())
    choose(browser, "#curve-scale", "log")
    seen.append(drawn())
    # On a logarithmic axis, equal ratios are equally far apart: losses 2, 2/11, 2/21 ...
    heights = [float(point.split()[1]) for point in drawn()[1:].split("L")]
    assert (heights[2] - heights[0]) / (heights[1] - heights[0]) == pytest.approx(1.2697, abs=0.01)
    set_range(browser, "#smoothing", 0.6)
    seen.append(drawn())
    assert one(browser, "#smoothing-value").text == "0.6"
    assert len(browser.find_elements(By.CSS_SELECTOR, "#curve-plot .raw")) == 4
    one(browser, "#step-from").send_keys("20" + Keys.TAB)
    assert drawn().count("L") == 3
    assert len(set(seen)) == len(seen)
    one(browser, "#whole-range").click()
    assert drawn() == seen[-1]


def test_dragging_across_the_curves_zooms(browser: Any) -> None:
    plot = one(browser, "#curve-plot")
    browser.execute_script("arguments[0].scrollIntoView()", plot)
    half = plot.size["width"] // 2
    drag = ActionChains(browser).move_to_element_with_offset(plot, -half // 2, 0).click_and_hold()
    drag.move_by_offset(half // 2, 0).release().perform()
    low, high = (int(one(browser, f"#step-{end}").get_attribute("value")) for end in ("from", "to"))
    assert 0 < low < high < max(STEPS)


def test_pictures_follow_the_epoch_and_open_enlarged(browser: Any) -> None:
    def sources() -> list[str]:
        return [image.get_attribute("src") for image in browser.find_elements(By.CSS_SELECTOR, "#gallery img")]

    assert one(browser, "#epoch-value").text == "2"
    last = sources()
    one(browser, "#epoch").send_keys(Keys.ARROW_LEFT)
    assert one(browser, "#epoch-value").text == "1"
    assert len(set(last + sources())) == 8
    images = "[...document.querySelectorAll('#gallery img')]"
    loaded = f"return Promise.all({images}.map((i) => i.decode().then(() => i.naturalWidth)))"
    assert browser.execute_script(loaded) == [24] * 4
    one(browser, "#gallery button").click()
    assert one(browser, "#viewer-caption").text == "val-000: alpha, epoch 1"
    one(browser, "#viewer-close").send_keys(Keys.ARROW_RIGHT)
    assert one(browser, "#viewer-caption").text == "val-000: beta, epoch 1"
    assert one(browser, "#viewer-image").get_attribute("src") == sources()[1]
    one(browser, "#viewer-close").send_keys(Keys.ESCAPE)
    assert not one(browser, "#viewer").is_displayed()


def test_the_front_is_what_no_run_beats(browser: Any) -> None:
    for memory_better, psnr_better in itertools.product(("min", "max"), repeat=2):
        choose(browser, "#x-better", memory_better)
        choose(browser, "#y-better", psnr_better)
        signs = [1 if better == "max" else -1 for better in (memory_better, psnr_better)]
        points = {n: (signs[0] * memory, signs[1] * psnr) for n, psnr, memory, _ in RUNS if psnr is not None}
        beaten = {n for n, p in points.items() for q in points.values() if q != p and q[0] >= p[0] and q[1] >= p[1]}
        note = one(browser, "#cost-note").text
        assert set(note.partition("beats in both: ")[2].partition(".")[0].split(", ")) == set(points) - beaten
        assert "1 of the runs shown" in note


def test_a_point_tells_its_numbers(browser: Any) -> None:
    browser.execute_script("arguments[0].focus()", one(browser, '#cost-plot [data-run="beta"]'))
    tip = one(browser, "#cost-plot .tip").text.split("\n")
    assert tip == ["beta", "peak memory (GiB) 1", "test/psnr (dB) 21"]


def test_a_phone_scrolls_tables_and_not_the_page(browser: Any) -> None:
    resize(browser, 390)
    browser.refresh()
    widths = browser.execute_script(
        "return [document.documentElement.scrollWidth, window.innerWidth, document.body.scrollWidth]"
    )
    assert widths == [390, 390, 390]
    overflows = "const box = document.querySelector('#runs .scroll'); return box.scrollWidth > box.clientWidth"
    assert browser.execute_script(overflows)
    one(browser, '#runs-table button[data-sort="model"]').click()
    assert names(browser)[-1] == "beta"


def test_colours_follow_the_system(browser: Any) -> None:
    background = "return getComputedStyle(document.body).backgroundColor"
    assert browser.execute_script(background) == "rgb(255, 255, 255)"
    resize(browser, 1400, "dark")
    assert browser.execute_script(background) == "rgb(20, 23, 27)"


def test_what_a_run_is_called_is_text(browser: Any) -> None:
    assert EVIL in texts(browser, "#runs-table td")
    assert browser.find_elements(By.CSS_SELECTOR, "img[src=x]") == []
