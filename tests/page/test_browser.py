"""The page in a browser: headless Chromium opens the file, as a user would with a double click."""

import functools
import html
import json
import re
import shutil
import subprocess

import pytest
from page_runs import write_run

from ffvit.page import render

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt-get install chromium"),
]

# Reports what a test asks for as the page's title, once the page's own script has run.
PROBE = """<script>
function press(element, key) {{
  element.dispatchEvent(new KeyboardEvent("keydown", {{ key, bubbles: true, cancelable: true }}));
}}
setTimeout(() => {{ document.title = "PROBE" + JSON.stringify({expression}); }}, 500);
</script>"""


@pytest.fixture
def make_run(tmp_path):
    """Write run folders; takes what `write_run` takes."""
    return functools.partial(write_run, tmp_path)


@pytest.fixture
def running(make_run):
    pages = []
    make_run(name="a_rather_long_name_" * 6, during=lambda log: pages.append(render(log._run)))
    return pages[0]


def chromium(path, *options, milliseconds=3000):
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={path.parent / 'profile'}",
        "--window-size=1400,900",
        f"--virtual-time-budget={milliseconds}",
        "--enable-logging=stderr",
        *options,
        path.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def probe(document, tmp_path, expression, *flags, **options):
    """Open a page and return the value of a JavaScript expression in it."""
    path = tmp_path / "page.html"
    # The page's own policy would not let the probe run.
    document = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", document)
    script = PROBE.format(expression=expression)
    path.write_text(document.replace("</body>", script + "</body>"))
    result = chromium(path, "--dump-dom", *flags, **options)
    found = re.search(r"<title>PROBE(.*?)</title>", result.stdout)
    assert found, result.stderr
    return json.loads(html.unescape(found[1]))


def test_it_opens_without_complaint_under_its_own_policy(running, tmp_path):
    path = tmp_path / "index.html"
    path.write_text(running)
    result = chromium(path, "--dump-dom")
    assert "CONSOLE" not in result.stderr
    assert re.search(r'id="age">, \d+ s ago<', result.stdout)  # the script has run


def test_the_policy_lets_no_other_script_run(running, tmp_path):
    path = tmp_path / "index.html"
    wicked = '<img src="data:," onerror="document.title=1"><script>document.title=2</script>'
    path.write_text(running.replace("</main>", wicked + "</main>"))
    result = chromium(path, "--dump-dom")
    assert "Content Security Policy" in result.stderr
    assert not re.search("<title>[12]</title>", result.stdout)


@pytest.mark.parametrize("width", [1400, 800, 400])
def test_nothing_sticks_out_of_the_window(running, tmp_path, width):
    """In a frame, as a window of Chromium cannot be as narrow as a telephone's."""
    tell = "parent.postMessage(document.documentElement.scrollWidth, '*')"
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", running)
    (tmp_path / "page.html").write_text(
        page.replace("</body>", f"<script>{tell}</script></body>").replace(
            "<details", "<details open"
        )
    )
    outer = tmp_path / "outer.html"
    outer.write_text(
        "<script>onmessage = (event) => { document.title = event.data; }</script>"
        f"<iframe src='page.html' style='border: 0; width: {width}px; height: 900px'></iframe>"
    )
    result = chromium(outer, "--dump-dom")
    assert int(re.search(r"<title>(\d+)</title>", result.stdout)[1]) <= width


def test_plots_are_read_by_keyboard(running, tmp_path):
    expression = """(() => {
      const figure = document.querySelector("[data-plot]");
      const said = [];
      figure.focus();
      for (const key of ["ArrowLeft", "ArrowLeft", "Home", "End", "ArrowRight"]) {
        press(figure, key);
        said.push(figure.querySelector(".readout").textContent);
      }
      figure.blur();
      const last = figure.querySelector(".readout").textContent;
      return [document.activeElement === figure, ...said, last];
    })()"""
    assert probe(running, tmp_path, expression) == [
        False,
        "epoch 2.5: last updates 0.08, training 0.75, validation 0.7",
        "epoch 2.4: last updates 0.08333, training 0.75, validation 0.7",
        "epoch 0.1: last updates 2, training 1.5, validation 1.4",
        "epoch 2.5: last updates 0.08, training 0.75, validation 0.7",
        "epoch 2.5: last updates 0.08, training 0.75, validation 0.7",
        "",
    ]


def test_plots_are_read_by_pointer(running, tmp_path):
    expression = """(() => {
      const figure = document.querySelector("[data-plot]");
      const box = figure.querySelector(".frame").getBoundingClientRect();
      const place = { clientX: box.right - 1, clientY: box.top + 9 };
      const event = new PointerEvent("pointermove", place);
      figure.querySelector(".frame").dispatchEvent(event);
      return figure.querySelector(".readout").textContent;
    })()"""
    said = probe(running, tmp_path, expression)
    assert said == "epoch 2.5: last updates 0.08, training 0.75, validation 0.7"


@pytest.mark.parametrize("is_followed", [True, False])
def test_it_loads_itself_anew_unless_told_not_to(running, tmp_path, is_followed):
    """Watched from outside, by a page that counts how often a frame has loaded."""
    page = running.replace('data-refresh-seconds="10"', 'data-refresh-seconds="1"')
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    click = (
        "" if is_followed else '<script>document.querySelector("#refresh input").click()</script>'
    )
    (tmp_path / "page.html").write_text(page.replace("</body>", click + "</body>"))
    count = "document.title = Number(document.title || 0) + 1"
    outer = tmp_path / "outer.html"
    outer.write_text(f"<iframe src='page.html' onload='{count}'></iframe>")
    result = chromium(outer, "--dump-dom", milliseconds=4500)
    loads = int(re.search(r"<title>(\d+)</title>", result.stdout)[1])
    assert loads > 2 if is_followed else loads == 1


@pytest.mark.parametrize(("scheme", "ground"), [(0, "rgb(20, 23, 28)"), (1, "rgb(255, 255, 255)")])
def test_light_and_dark_follow_the_system(running, tmp_path, scheme, ground):
    expression = "getComputedStyle(document.body).backgroundColor"
    option = f"--blink-settings=preferredColorScheme={scheme}"
    assert probe(running, tmp_path, expression, option) == ground
