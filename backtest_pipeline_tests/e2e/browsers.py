"""A real browser that no page may use to reach another host."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_AXE = Path(__file__).parents[2] / "ops" / "axe" / "node_modules" / "axe-core" / "axe.min.js"


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


def accessibility_findings(page: Page) -> list[str]:
    """What the rules of axe-core find on a page: rule and element; skipped where it is missing.

    The contrast of SVG text is undecided for axe: the palette is tested by arithmetic.
    """
    if not _AXE.exists():
        pytest.skip("no axe-core; install it with npm ci --prefix ops/axe")
    page.evaluate(_AXE.read_text())  # a script element would be refused by the page's policy
    found = page.evaluate(
        "axe.run(document, {resultTypes: ['violations']}).then(found => found.violations.flatMap("
        "rule => rule.nodes.map(node => `${rule.id}: ${node.html.slice(0, 120)}`)))"
    )
    return list(found)
