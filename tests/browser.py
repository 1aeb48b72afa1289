"""JupyterLab in headless Chromium: a server on this machine, a notebook in a page, and the contrast of its texts."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 300  # seconds that a page may take to appear
LONGEST = 1200  # seconds that a notebook may take to run
PYTHON = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
# A new user is asked whether to show news of Jupyter's makers. That notification is not the course's.
NO_NEWS = {"fetchNews": "false", "checkForUpdates": False}

# The texts of an element whose contrast to their background is below 4.5, the bound of WCAG 2 for text of any size
# (https://www.w3.org/TR/WCAG22/#contrast-minimum). A canvas reads every notation of a colour.
LOW_CONTRAST = """root => {
    const canvas = document.createElement('canvas');
    canvas.width = canvas.height = 1;
    const pen = canvas.getContext('2d', {willReadFrequently: true});
    const rgba = colour => {
        pen.clearRect(0, 0, 1, 1);
        pen.fillStyle = colour;
        pen.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
        return [r, g, b, a / 255];
    };
    const over = (top, below, alpha = top[3]) =>
        below.map((value, i) => i < 3 ? alpha * top[i] + (1 - alpha) * value : 1);
    const background = element => {
        if (!element) return [255, 255, 255, 1];
        const own = rgba(getComputedStyle(element).backgroundColor);
        return own[3] === 1 ? own : over(own, background(element.parentElement));
    };
    const luminance = colour => {
        const [r, g, b] = colour.slice(0, 3).map(value => value / 255)
            .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const opacity = element => element ? getComputedStyle(element).opacity * opacity(element.parentElement) : 1;
    const LEFT_OUT = 'style, button:disabled, .jp-OutputPrompt';  // JupyterLab's own numbers of outputs
    const found = [];
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement, said = walker.currentNode.data.trim();
        if (!said || element.closest(LEFT_OUT) || !element.checkVisibility()) continue;
        const style = getComputedStyle(element), behind = background(element);
        const colour = rgba(element.closest('svg') ? style.fill : style.color);
        const seen = over(colour, behind, colour[3] * opacity(element));
        const [high, low] = [luminance(seen), luminance(behind)].sort((a, b) => b - a);
        const ratio = (high + 0.05) / (low + 0.05);
        if (ratio < 4.495) found.push(`${ratio.toFixed(2)} ${said.slice(0, 40)}`);
    }
    return [...new Set(found)];
}"""


def smoke_copy(notebook: Path, folder: Path) -> Path:
    """Copy `notebook` into `folder`, without outputs and with profile = "smoke", as a learner would edit it."""
    copy = nbformat.read(notebook, as_version=4)
    changed = 0
    for cell in copy.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            if "parameters" in cell.metadata.get("tags", []):
                assert '"cpu"' in cell.source
                cell.source = cell.source.replace('"cpu"', '"smoke"', 1)
                changed += 1
    assert changed == 1, f"{notebook.name} has {changed} cells with the tag parameters; expected one"
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(copy, folder / notebook.name)
    return folder / notebook.name


@contextmanager
def server(root: Path, private: Path) -> Iterator[str]:
    """Run JupyterLab over the folder `root`, with its settings and logs in `private`; yield its address with a token.

    It listens on the loopback interface alone.
    """
    settings = private / "config" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(NO_NEWS), encoding="utf-8")
    ours = ("FTLAB_HEADLESS", "FTLAB_RUN_FOLDER")  # of a run with nobody before it
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    for name in ("config", "data", "runtime"):
        environment[f"JUPYTER_{name.upper()}_DIR"] = str(private / name)
    environment["IPYTHONDIR"] = str(private / "ipython")
    token = secrets.token_hex(16)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
        "--ServerApp.port_retries=0", f"--ServerApp.root_dir={root}", f"--IdentityProvider.token={token}",
        "--LabApp.expose_app_in_browser=True",
    ]  # fmt: skip
    with (private / "log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        _wait(f"http://127.0.0.1:{port}/api?token={token}", process, private / "log")
        yield f"http://127.0.0.1:{port}/lab/tree/{{}}?reset&token={token}"
    finally:
        process.terminate()  # it shuts its kernels down
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends and process.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"JupyterLab did not start: {log.read_text(encoding='utf-8')[-2000:]}")


class Page:
    """A notebook that is open in JupyterLab. `page` is Playwright's page."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def open(self, address: str) -> None:
        """Open `address`, and wait for the notebook and its kernel."""
        self.page.goto(address)
        self.page.wait_for_function(
            "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'",
            timeout=1000 * PATIENCE,
        )

    def command(self, name: str, **arguments: Any) -> None:
        """Execute a command of JupyterLab, and wait for it."""
        execute = "async ([name, given]) => { await jupyterapp.commands.execute(name, given) }"
        self.page.evaluate(execute, [name, arguments])

    def run_all(self) -> None:
        """Choose Run, Run All Cells, and wait until the last cell is done."""
        self.page.evaluate(
            """() => {
                window.ran = false;
                jupyterapp.commands.execute('notebook:run-all-cells').finally(() => { window.ran = true });
            }"""
        )
        self.page.wait_for_function("() => window.ran", timeout=1000 * LONGEST)
        self.page.wait_for_function(
            "() => jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'", timeout=60_000
        )

    def cells(self) -> list[dict[str, Any]]:
        """Return the cells as they are in the page's memory: nbformat's dictionaries."""
        return self.page.evaluate("() => jupyterapp.shell.currentWidget.content.model.toJSON().cells")

    def theme(self, name: str) -> None:
        """Change the theme to "JupyterLab Light" or "JupyterLab Dark"."""
        self.command("apputils:change-theme", theme=name)
        self.page.wait_for_function(
            "light => document.body.dataset.jpThemeLight === light", arg=str("Light" in name).lower(), timeout=60_000
        )
        self.page.wait_for_timeout(500)  # the style sheets of the theme arrive after it

    def outputs(self, index: int) -> Any:
        """Scroll to the cell at `index`, and return the element with its outputs."""
        handle = self.page.evaluate_handle(
            """async index => {
                const content = jupyterapp.shell.currentWidget.content;
                content.activeCellIndex = index;
                await content.scrollToItem(index, 'start');
                return content.widgets[index].outputArea.node;
            }""",
            index,
        )
        element = handle.as_element()
        element.wait_for_element_state("visible", timeout=60_000)
        return element

    def messages(self) -> list[str]:
        """Return the texts of dialogs and notifications that the page shows."""
        shown = self.page.locator(".jp-Dialog, .Toastify__toast")
        return [text.strip() for text in shown.all_inner_texts()]

    def shut_down(self) -> None:
        """Shut the kernel down."""
        self.page.evaluate("async () => { await jupyterapp.shell.currentWidget.sessionContext.shutdown() }")


@contextmanager
def chromium() -> Iterator[Any]:
    """Yield headless Chromium as Playwright's browser, or skip the test."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is in the extra `browser`")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    with playwright.sync_playwright() as driver:
        # Chromium's own sandbox needs rights that a container lacks; the pages are ours.
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()
