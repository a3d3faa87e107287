"""The built site, served on this machine, and a browser that can reach nothing else."""

import functools
import http.server
import threading

import pytest

from poolnb.book import build as book
from poolnb.book.browser import chromium, executable


@pytest.fixture(scope="session")
def site():
    """The folder of the built site: made strictly (a warning is an error), or reused if its inputs are the same."""
    assert book.build() == 0, "the site does not build without warnings"
    return book.SITE


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="session")
def address(site):
    """Where the site is served: an address of this machine."""
    handler = functools.partial(_Quiet, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="session")
def browser():
    pytest.importorskip("playwright.sync_api")
    if executable() is None:
        pytest.skip("no browser: install chromium so that it is on PATH")
    with chromium() as opened:
        yield opened


@pytest.fixture
def watched(browser):
    """Makes an empty page in a fresh context; at the end, whatever went wrong on one in the meantime fails the test."""
    contexts, problems = [], []

    def new_page(**options):
        context = browser.new_context(**options)
        context.set_default_timeout(120_000)  # a slow machine is no error of the page
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: problems.append(f"console: {m.text}") if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: problems.append(f"script: {error}"))
        page.on("requestfailed", lambda request: problems.append(f"not loaded: {request.url}"))
        page.on("response", lambda r: problems.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
        return page, problems

    yield new_page
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def visit(watched, address):
    """Opens a served page, which must load nothing from another host."""

    def open_page(name, wait_until="load", **options):
        page, problems = watched(**options)
        page.on("request", lambda r: None if r.url.startswith((address, "data:", "blob:")) else problems.append(r.url))
        page.goto(f"{address}/{name}", wait_until=wait_until)
        return page

    return open_page
