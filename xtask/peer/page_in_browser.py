#!/usr/bin/env python3
"""Opens a page of `taper report` in a real browser: narrow and wide, light and dark. Writes pictures to look at.

python3 xtask/peer/page_in_browser.py PAGE.html FOLDER [CHROMIUM]
Needs: pip install playwright, and a Chromium (its own, after `playwright install chromium`, or the one that is named).

Fails if the browser asks for any other file, writes anything to its console, or has to scroll sideways; if pointing at
a chart shows no value; or if pointing at the confusion matrix, where there is one, names no class.
"""
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

WIDTHS, SCHEMES = (360, 1440), ("light", "dark")


def check(browser, page_path, folder, width, scheme):
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page, problems = context.new_page(), []
    page.on("console", lambda message: problems.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: problems.append(f"error: {error}"))
    page.on("request", lambda request: problems.append(f"request: {request.url}") if not request.url.startswith(("file:", "data:")) else None)
    page.goto(page_path.resolve().as_uri())
    over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    if over > 0:
        problems.append(f"{over} pixels too wide")
    plot = page.locator(".plot").first
    plot.hover()
    tip = page.locator(".tip").first.inner_text().replace("\n", " ")
    if not any(letter.isdigit() for letter in tip):
        problems.append("a chart shows no value")
    readout = ""
    if page.locator("canvas").count():
        page.locator("button[data-zoom=in]").first.click()
        page.locator("canvas").first.hover()
        readout = page.locator(".readout").first.inner_text()
        if " of " not in readout:
            problems.append("the confusion matrix names no class")
        page.locator("button[data-zoom=all]").first.click()
    picture = folder / f"{page_path.stem}-{width}-{scheme}.png"
    page.screenshot(path=picture, full_page=True)
    context.close()
    print(f"{picture}: {tip}; {readout}; {problems or 'nothing amiss'}")
    return problems


def main():
    page_path, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=sys.argv[3] if len(sys.argv) > 3 else None, args=["--no-sandbox"])
        problems = [problem for width in WIDTHS for scheme in SCHEMES for problem in check(browser, page_path, folder, width, scheme)]
        browser.close()
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
