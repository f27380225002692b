"""The status page in a real browser: what it shows, by keyboard too, and what it never does.

WEIR_SCREENSHOTS=folder keeps pictures of it at all sizes, to be looked at.
"""

from __future__ import annotations

import json
import os
import re
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from chromium import Chromium
from programs import started, weir_command
from status_documents import HOSTILE, Document, busy_host, calm_host, empty_host, hostile_host

PAGE = Path(__file__).resolve().parents[2] / "cli" / "status.html"
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'"
)


class Server:
    """Serves the page under the policy it is made for, and what `document` makes of the time."""

    def __init__(self) -> None:
        self.document: Callable[[float], Any] = busy_host
        self.status = 200
        self.asked = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # the browser has gone to another page meanwhile

        self._http = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        status, kind = self.status, "application/json"
        if request.path == "/":
            status, kind, body = 200, "text/html; charset=utf-8", PAGE.read_bytes()
        elif request.path == "/state.json?history=1":
            self.asked += 1
            document = self.document(time.time())
            body = document if isinstance(document, bytes) else json.dumps(document).encode()
        else:
            status, body = 404, b"{}"
        request.send_response(status)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Security-Policy", POLICY)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def page(browser: Chromium, server: Server) -> Iterator[Callable[..., Chromium]]:
    """page(document, width, height): the browser with the page and its first numbers."""

    def opened(
        document: Callable[[float], Any] = busy_host, width: int = 1600, height: int = 1000
    ) -> Chromium:
        server.document = document
        browser.errors.clear()
        browser.requests.clear()
        browser.prefer(color_scheme="light", reduced_motion="no-preference")
        browser.resize(width, height)
        browser.open(server.url)
        here = f"location.href === {json.dumps(server.url)}"
        browser.wait(f"{here} && document.readyState === 'complete' && view.doc !== null")
        return browser

    yield opened
    assert browser.errors == []
    # Nothing was asked for, but the page and its numbers.
    assert set(browser.requests) <= {server.url, server.url + "state.json?history=1"}
    browser.open("about:blank")


Page = Callable[..., Chromium]


def text_of(browser: Chromium, selector: str) -> str:
    text = browser.js(f"document.querySelector({json.dumps(selector)}).textContent")
    assert isinstance(text, str)
    return text


def texts_of(browser: Chromium, selector: str) -> list[str]:
    found = browser.js(
        f"[...document.querySelectorAll({json.dumps(selector)})].map((e) => e.textContent)"
    )
    assert isinstance(found, list)
    return found


# ---- what it shows ------------------------------------------------------------------------------


def test_the_root_the_issues_and_the_processes_are_shown(page: Page) -> None:
    browser = page()
    assert text_of(browser, "#root-text").startswith("Stage 'ingest/store' is the bottleneck: 94 %")
    assert browser.js("document.title") == "▲ ingest/store \u2013 weir"
    issues = texts_of(browser, "#issues .what")
    assert len(issues) == 6 and "Breaker 'payments' is open: calls are rejected." in issues
    processes = texts_of(browser, "tbody th[scope=rowgroup] b")
    assert processes[1].strip() == "└ 4250\xa0 resize worker 0".replace("\xa0 ", "  ")
    assert processes[0].startswith("4242  python ingest.py")


def test_stages_stand_behind_those_that_feed_them(page: Page) -> None:
    browser = page()
    left = browser.js(
        "Object.fromEntries([...document.querySelectorAll('.node')]"
        ".map((e) => [e.title, e.getBoundingClientRect().left]))"
    )
    assert left["ingest/read"] < left["ingest/parse"] < left["ingest/enrich"]
    assert left["ingest/enrich"] == left["ingest/thumbnails"] < left["ingest/store"]
    assert len(texts_of(browser, ".pipeline figcaption")) == 2
    assert browser.js("document.querySelectorAll('.edge').length") >= 7
    assert all(re.fullmatch(r"[\d.]+k?/s", rate) for rate in texts_of(browser, ".rate"))


def test_pressure_is_a_sign_and_a_width_as_well_as_a_colour(page: Page) -> None:
    browser = page()
    store, read = (
        browser.js(
            "(e => [e.textContent[0], parseFloat(getComputedStyle(e).borderLeftWidth), "
            "e.ariaLabel])"
            f"(document.querySelector('.node[title=\"ingest/{name}\"]'))"
        )
        for name in ("store", "read")
    )
    assert store[0] == "▲" and read[0] == "○" and store[1] > read[1]
    assert "the bottleneck" in store[2] and "calm" in read[2]


def test_what_is_chosen_is_shown_with_its_charts_and_numbers(page: Page) -> None:
    browser = page()
    browser.js("document.querySelector('tr.object button[aria-label^=\"jobs,\"]').click()")
    assert text_of(browser, "#detail-title") == "jobs"
    assert browser.js("location.hash") == "#5100-8"
    titles = texts_of(browser, ".chart h3")
    assert titles == ["Depth", "Throughput", "Latency, p99", "Callers that wait"]
    lines = browser.js(
        "[...document.querySelectorAll('.chart > svg .line')]"
        ".map((e) => e.getAttribute('d').length)"
    )
    assert len(lines) == 8 and min(lines[:5]) > 500  # 120 samples each
    assert {"now", "1,000", "1000"} & set(texts_of(browser, ".chart .tick"))
    assert re.fullmatch(r"[\d,]+ in = [\d,]+ out \+ 40 dropped or cancelled \+ [\d,]+ inside",
                        text_of(browser, ".law"))  # fmt: skip
    browser.js("document.querySelectorAll('#detail details').forEach((e) => { e.open = true; })")
    browser.wait("document.querySelectorAll('#detail details:last-child tbody tr').length >= 60")
    assert "put blocked seconds" in texts_of(browser, "#detail details tbody th")


def test_the_address_names_what_is_shown(page: Page) -> None:
    browser = page()
    for address, title in (
        ("#5100-9", "mail"),
        ("#%", "ingest/store"),
        ("#no-such", "ingest/store"),
    ):
        browser.js(f"location.hash = {json.dumps(address)}")
        browser.wait(f"document.getElementById('detail-title').textContent === '{title}'")


def test_hovering_over_a_chart_shows_the_numbers_of_that_time(page: Page) -> None:
    browser = page()
    x, y = browser.js(
        "(e => { const r = e.getBoundingClientRect(); return [r.left + r.width / 2, r.top + 60]; })"
        "(document.querySelector('.chart > svg'))"
    )
    browser.tell("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    browser.wait("document.querySelectorAll('.chart .cursor').length === 4")
    assert re.search(r"\d+ s ago", text_of(browser, ".chart figcaption"))
    browser.tell("Input.dispatchMouseEvent", type="mouseMoved", x=5, y=5)
    browser.wait("document.querySelectorAll('.chart .cursor').length === 0")


def test_objects_are_filtered_and_sorted(page: Page) -> None:
    browser = page(lambda at: busy_host(at, 300))
    assert text_of(browser, "#objects-title") == "Objects (314)"
    assert browser.js("document.querySelectorAll('tr.object').length") == 200
    browser.js("document.getElementById('more').click()")
    assert browser.js("document.querySelectorAll('tr.object').length") == 314
    browser.js("document.getElementById('filter').focus()")
    browser.type("shard 29")
    browser.wait("document.querySelectorAll('tr.object').length === 13")  # also 029, 129, 229
    browser.js("document.querySelector('[data-sort=out] button').click()")
    names = texts_of(browser, "tr.object .label")
    assert browser.js("document.querySelector('[data-sort=out]').ariaSort") == "descending"
    browser.js("document.querySelector('[data-sort=name] button').click()")
    assert texts_of(browser, "tr.object .label") == sorted(names)
    browser.type(" no such thing")
    browser.wait("!document.getElementById('empty').hidden")
    assert text_of(browser, "#empty") == "No object matches the filter."


def test_a_kind_is_chosen_from_those_there_are(page: Page) -> None:
    browser = page()
    assert "breaker" in texts_of(browser, "#kind option")
    browser.js("(e => { e.value = 'stage'; e.dispatchEvent(new Event('change')); })"
               "(document.getElementById('kind'))")  # fmt: skip
    assert len(texts_of(browser, "tr.object .label")) == 7


def test_thousands_of_objects_stay_bounded(page: Page) -> None:
    def host(at: float) -> Any:
        document = Document(at)
        document.process(1, "python many.py")
        for i in range(3000):
            document.object(1, "queue", f"queue {i}", length=2)
        document.content["objects_beyond"] = 17
        return document.content

    browser = page(host)
    assert browser.js("document.querySelectorAll('tr.object').length") == 200
    assert text_of(browser, "#empty") == "17 more objects are there than are looked at."
    assert browser.js("Math.max(...[...past.values()].map((kept) => kept.at.length))") <= 2


def test_what_is_remembered_of_an_object_is_bounded(page: Page) -> None:
    browser = page(calm_host)
    browser.js("for (let i = 1; i < 400; i++) { for (const o of view.doc.objects) o.history.at ="
               " o.history.at.map((t) => t + 10); remember(view.doc); }")  # fmt: skip
    assert browser.js("[...past.values()].map((kept) => [kept.at.length, kept.depth.length])") == [
        [300, 300]
    ]


def test_nothing_to_show_is_said(page: Page) -> None:
    browser = page(empty_host)
    assert text_of(browser, "#empty").startswith("No process that uses weir is running.")
    assert browser.js("document.getElementById('detail').hidden") is True


def test_consumers_that_wait_are_no_alarm(page: Page) -> None:
    document = Document(time.time())
    document.process(1, "python a.py")
    jobs = document.object(1, "queue", "jobs", flow=9, full=0, hungry=1.0)
    document.root(jobs, "consumers of queue 'jobs' wait: its producers are the slow side")
    jobs["root"] = False  # so it is told
    jobs["rates"]["pressure"] = 0.0
    browser = page(lambda at: document.content)
    assert text_of(browser, "#root-text").startswith("Consumers of queue 'jobs' wait")
    assert text_of(browser, "#root-title") == "Nothing is held back"
    assert text_of(browser, "#root-sign") == "○"
    assert browser.js("document.querySelector('#root').classList.contains('pressed')") is False
    assert browser.js("document.title") == "weir"
    browser.js("view.doc.objects[0].root = true; render()")
    assert text_of(browser, "#root-title") == "What holds everything back"
    assert text_of(browser, "#root-sign") == "▲"


def test_a_stage_without_a_queue_has_no_bound_of_nothing(page: Page) -> None:
    document = Document(time.time())
    document.process(1, "python a.py")
    source = document.object(1, "stage", "a/read", flow=9, full=0, capacity=0)
    source["fullness"] = None
    browser = page(lambda at: document.content)
    about = browser.js("describe(view.doc.objects[0])")
    assert about.startswith("a/read, stage, ") and "inside" not in about
    facts = browser.js("facts(view.doc.objects[0])")
    assert not {"Inside", "Bound"} & {name for name, value in facts if value}


def test_a_calm_host_is_calm(page: Page) -> None:
    browser = page(calm_host)
    assert text_of(browser, "#root-text") == "Nothing holds anything back."
    assert browser.js("document.getElementById('issues').hidden") is True


# ---- what it never does -------------------------------------------------------------------------


def test_names_are_text_and_never_markup(page: Page) -> None:
    browser = page(hostile_host)
    browser.js("document.querySelectorAll('#detail details').forEach((e) => { e.open = true; })")
    for name in texts_of(browser, "tr.object .label"):
        assert name  # one without a name is called by its kind and number
    browser.js("document.querySelectorAll('tr.object button').forEach((e) => e.click())")
    assert HOSTILE in texts_of(browser, "tr.object .label")
    assert browser.js("document.title") not in ("owned", "1")
    assert browser.js("document.querySelectorAll('img, iframe, script').length") == 1  # its own


def test_the_page_is_one_file_that_asks_nobody_else() -> None:
    page = PAGE.read_text()
    assert "default-src 'none'" in page and "innerHTML" not in page
    assert set(re.findall(r"https?://[^\"' ]+", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<link|<img|@import|url\(|\bsrc=", page)


def test_what_is_no_document_is_refused_in_a_sentence(page: Page, server: Server) -> None:
    browser = page(calm_host)
    for document, words in (
        ({"version": 2}, "speaks version 2"),
        (b"<html>", ""),
        (None, "version"),
    ):
        server.document = lambda at, document=document: document  # type: ignore[misc]
        browser.js("ask()")
        assert text_of(browser, "#how").startswith("No answer from the server")
        assert words in text_of(browser, "#how")
    assert len(texts_of(browser, "tr.object")) == 1  # what was seen last stays


# ---- asking -------------------------------------------------------------------------------------


def test_it_asks_while_somebody_looks_and_not_while_hidden_or_paused(
    page: Page, server: Server
) -> None:
    browser = page()
    asked = server.asked
    browser.wait(f"view.doc.at * 1000 > {time.time() * 1000 + 1}")
    assert server.asked > asked
    hide = ("Object.defineProperty(document, 'hidden', {{ value: {}, configurable: true }});"
            "document.dispatchEvent(new Event('visibilitychange'))")  # fmt: skip
    for stop, go, word in (
        (hide.format("true"), hide.format("false"), "Live"),
        ("document.getElementById('pause').click()",) * 2 + ("Paused",),
    ):
        browser.js(stop)
        browser.wait("!link.asking")
        asked = server.asked
        time.sleep(1.3)
        assert server.asked == asked
        assert text_of(browser, "#how") == word
        browser.js(go)
        browser.wait("!link.asking")
        assert server.asked == asked + 1


def test_a_server_that_is_gone_is_said_and_asked_less_and_less(page: Page, server: Server) -> None:
    browser = page()
    server.status = 503
    pauses = []
    for _ in range(6):
        pauses.append(
            round(browser.js("ask().then(() => (link.next - Date.now()) / 1000)"))
        )  # read when it was set: what comes later may come much later
    assert pauses == [2, 4, 8, 15, 15, 15]
    assert text_of(browser, "#how") == "No answer from the server: it answered 503"
    assert text_of(browser, "#when").startswith("next try in 15 s")
    server.status = 200
    browser.js("ask()")
    assert text_of(browser, "#how") == "Live" and text_of(browser, "#when") == ""
    assert all("503" in error for error in browser.errors)  # the browser's own words
    browser.errors.clear()


# ---- for everybody ------------------------------------------------------------------------------


def test_all_is_reached_and_done_by_keyboard(page: Page) -> None:
    browser = page()
    stops = []
    for _ in range(60):
        browser.press("Tab")
        stop = browser.focused("e.id || e.className || e.parentNode.dataset.sort || e.tagName")
        outline = browser.focused("getComputedStyle(e).outlineStyle !== 'none'")
        assert outline, f"the focus is not seen at {stop}"
        stops.append(stop)
        if stop == "plain name":
            break
    assert stops[0] == "skip"
    for wanted in ("pause", "root-show", "plain", "node", "chart", "filter", "kind", "sort"):
        assert any(wanted in stop for stop in stops), (wanted, stops)
    assert sum("node" in stop for stop in stops) == 2  # one stop for each pipeline

    browser.press("ArrowDown", "ArrowDown", "Enter")
    assert text_of(browser, "#detail-title") == "ingest/enrich"
    browser.press("End", "ArrowUp", "Enter")
    assert text_of(browser, "#detail-title") == "report/rows"
    browser.press("Home")
    assert "ingest/read" in browser.focused("e.ariaLabel")


def test_arrows_walk_through_the_graph(page: Page) -> None:
    browser = page()
    browser.js("document.querySelector('.node[title=\"ingest/read\"]').focus()")
    walk = []
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowUp", "ArrowRight", "ArrowRight"):
        browser.press(key)
        walk.append(browser.focused("e.title").removeprefix("ingest/"))
    assert walk[0] == "parse" and set(walk[1:4]) <= {"enrich", "thumbnails"}
    assert walk[4:] == ["store", "store"]
    browser.press("ArrowLeft", "ArrowLeft", "Enter")
    assert text_of(browser, "#detail-title") == "ingest/parse"


def test_arrows_walk_through_the_time_of_a_chart(page: Page) -> None:
    browser = page()
    browser.js("document.querySelector('.chart').focus()")
    browser.press("Home")
    assert re.search(r"(119|120|121) s ago|2 min ago", text_of(browser, "#say"))
    browser.press("End", "ArrowLeft", "ArrowLeft")
    assert re.search(r"inside \d+.*2 s ago", text_of(browser, "#say"))
    browser.press("Escape")
    assert browser.js("view.cursor") is None


def test_the_focus_stays_where_it_is_when_the_numbers_change(page: Page) -> None:
    browser = page()
    browser.js("sortBy('in')")
    browser.js("document.querySelectorAll('tr.object button')[3].focus()")
    label = browser.focused("e.querySelector('.label').textContent")
    for _ in range(3):  # the rows change places meanwhile
        browser.js("view.rising = !view.rising; ask()")
        assert browser.focused("e.querySelector('.label')?.textContent") == label


def test_the_root_is_said_aloud_when_it_changes_and_not_each_second(page: Page) -> None:
    browser = page()
    said = text_of(browser, "#say")
    assert "94 %" in said
    browser.js("view.doc.root.text = view.doc.root.text.replace('94', '95'); render()")
    assert "95 %" in text_of(browser, "#root-text") and text_of(browser, "#say") == said
    browser.js("view.doc.root = null; render()")
    assert text_of(browser, "#say") == "Nothing holds anything back."


def test_the_page_has_landmarks_headings_and_names(page: Page) -> None:
    browser = page()
    assert browser.js(
        "['header', 'main', 'footer', 'h1'].every((e) => document.querySelectorAll(e).length === 1)"
    )
    nodes = browser.tell("Accessibility.getFullAXTree")["nodes"]
    named = {
        (node["role"]["value"], node["name"]["value"])
        for node in nodes
        if not node["ignored"] and node.get("name")
    }
    for role in (
        "What holds everything back",
        "Issues (6)",
        "Flow",
        "ingest/store",
        "Objects (14)",
    ):
        assert ("region", role) in named
    assert ("columnheader", "Wait p99") in named and ("searchbox", "Filter") in named
    nameless = [
        node["role"]["value"] for node in nodes
        if not node["ignored"] and not node.get("name", {}).get("value")
        and node["role"]["value"] in ("button", "searchbox", "combobox", "region", "table", "link")
    ]  # fmt: skip
    assert nameless == []


CONTRASTS = """(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const under = (e) => {
    for (; e; e = e.parentElement) {
      const color = rgba(getComputedStyle(e).backgroundColor);
      if (color[3] === 255) return color;
    }
    return [255, 255, 255, 255];
  };
  const poor = [];
  const look = (e, behind) => {
    const style = getComputedStyle(e), ink = e.closest("svg") ? style.fill : style.color;
    const [a, b] = [light(rgba(ink)), light(behind)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push(`${e.textContent.slice(0, 20)}: ${ratio.toFixed(2)}`);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  for (let text = walker.nextNode(); text; text = walker.nextNode()) {
    const e = text.parentElement;
    if (!text.data.trim() || !e.checkVisibility() || e.closest("script, style, .unseen")) continue;
    look(e, under(e));
    const bar = e.closest(".bar");  // what is written on a bar is on its filled part as well
    if (bar) look(e, rgba(getComputedStyle(bar.firstChild).backgroundColor));
    seen++;
  }
  return { poor, seen };
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_is_enough(page: Page, scheme: str) -> None:
    browser = page()
    browser.prefer(color_scheme=scheme)
    found = browser.js(CONTRASTS)
    assert found["seen"] > 200 and found["poor"] == []


def test_nothing_moves_for_who_does_not_want_it(page: Page) -> None:
    browser = page()
    assert browser.js("document.getAnimations().length") > 0
    browser.prefer(reduced_motion="reduce")
    browser.wait("document.getAnimations().length === 0")


SIZES = [(1600, 1000), (1200, 800), (800, 600), (360, 740)]


@pytest.mark.parametrize("document", [busy_host, hostile_host, empty_host])
def test_it_fits_every_window(page: Page, document: Callable[[float], Any], tmp_path: Path) -> None:
    folder = Path(os.environ.get("WEIR_SCREENSHOTS", tmp_path))
    folder.mkdir(exist_ok=True, parents=True)
    browser = page(document)
    for width, height in SIZES:
        browser.resize(width, height)
        browser.wait(f"innerWidth === {width}")
        assert browser.js("document.documentElement.scrollWidth") <= width
        for scheme in ("light", "dark"):
            browser.prefer(color_scheme=scheme, reduced_motion="reduce")
            shot = folder / f"{document.__name__}-{width}-{scheme}.png"
            browser.screenshot(shot)
            assert struct.unpack(">II", shot.read_bytes()[16:24]) == (width, height)


def test_on_a_narrow_window_choosing_leads_to_the_object_and_back(page: Page) -> None:
    browser = page(busy_host, 360, 740)
    browser.js("document.querySelector('tr.object button[aria-label^=\"mail,\"]').focus()")
    browser.press("Enter")
    assert browser.focused("e.id") == "detail" and text_of(browser, "#detail-title") == "mail"
    browser.press("Tab", "Enter")
    assert "mail" in browser.focused("e.ariaLabel")


# ---- served by the real ones --------------------------------------------------------------------

PIPELINE = """
import sys, threading, time, weir

def endless():
    while True:
        yield "line"

pipeline = weir.Pipeline(endless(), name="ingest")
pipeline.stage(lambda line: line, name="parse", queue=8)
pipeline.sink(lambda line: time.sleep(0.01), name="store", queue=8)
with weir.serve_metrics(0, processes="self") as server:
    pipeline.start()
    print(server.port, flush=True)
    sys.stdin.read()
"""


def test_a_real_pipeline_is_shown_by_its_own_server_and_by_the_command(
    browser: Chromium, tmp_path: Path
) -> None:
    with (
        started(sys.executable, "-c", PIPELINE, folder=tmp_path) as (own, pid),
        started(weir_command(), "export", "--port", "0", folder=tmp_path) as (export, _),
    ):
        for port in (own, export):
            browser.errors.clear()
            browser.requests.clear()
            browser.resize(1600, 1000)
            browser.open(f"http://127.0.0.1:{port}/")
            browser.wait("document.querySelectorAll('.node').length >= 2")
            browser.wait("document.querySelector('#root-text').textContent.includes('store')")
            assert texts_of(browser, ".node b span:first-child")[-1].endswith("store")
            browser.wait(
                "document.querySelector('.node[title=\"ingest/store\"]').className === 'node n3'"
            )
            assert str(pid) in text_of(browser, "tbody th[scope=rowgroup] b")
            browser.wait("view.doc.objects.every((one) => past.get(one.key).at.length >= 2)")
            assert browser.errors == []
            assert {url.split("/")[2] for url in browser.requests} == {f"127.0.0.1:{port}"}
        browser.open("about:blank")
