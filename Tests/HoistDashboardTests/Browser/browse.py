"""Uses a dashboard as a person does, in a real Chromium, and tells what is wrong with it.

usage: browse.py BASE_URL [FOLDER]     FOLDER: screenshots are put there
The fleet: Python workers of fleet.py on the queue python; Swift workers of the queue swift with the jobs swift.ok and
swift.fail.
"""
import os
import shutil
import subprocess
import sys
import time

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

import fleet

base = sys.argv[1].rstrip("/")
folder = sys.argv[2] if len(sys.argv) > 2 else None
problems = []
PAGES = {
    "overview": "/", "jobs": "/jobs", "queues": "/queues", "queue": "/queues/python", "workers": "/workers",
    "scheduled": "/scheduled", "dead-letters": "/dead-letters", "names": "/names", "audit": "/audit",
}


def check(condition, what):
    if not condition:
        problems.append(what)
        print("WRONG:", what, flush=True)


def until(condition, what, seconds=30):
    """Waits for a condition. Returns how long it took."""
    begin = time.monotonic()
    while time.monotonic() - begin < seconds:
        if condition():
            return time.monotonic() - begin
        time.sleep(0.02)
    check(False, f"{what}: not within {seconds} s")
    return seconds


def watch(page, name):
    """Whatever the browser complains of is a fault: errors of scripts, refused content, violations of the policy."""
    page.on("console", lambda message: check(message.type not in ("error", "warning"), f"{name}: console: {message.text}"))
    page.on("pageerror", lambda error: check(False, f"{name}: {error}"))


def open_context(browser, width=1280, height=900, scheme="light", **more):
    return browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **more)


def looks(browser, worker, job):
    """Each page at each size in both themes: nothing overflows, nothing shifts, and axe finds nothing grave."""
    pages = PAGES | {"worker": "/workers/" + worker, "job": "/jobs/" + job}
    for scheme in ("light", "dark"):
        for name, path in pages.items():
            context = open_context(browser, scheme=scheme)
            page = context.new_page()
            watch(page, f"{name} {scheme}")
            page.add_init_script("""
                window.shift = 0;
                new PerformanceObserver((list) => { for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shift += entry.value; })
                    .observe({type: "layout-shift", buffered: true});
            """)
            answer = page.goto(base + path)
            check(answer.status == 200, f"{name}: status {answer.status}")
            page.wait_for_function("document.fonts.status === 'loaded'")
            for width, height in ((1280, 900), (768, 1024), (390, 844)):
                page.set_viewport_size({"width": width, "height": height})
                over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                check(over <= 0, f"{name} {scheme} at {width}: {over} pixels too wide")
                if folder:
                    page.screenshot(path=f"{folder}/{name}-{scheme}-{width}.png")
                if width == 1280:
                    shift = page.evaluate("window.shift")
                    check(shift < 0.02, f"{name} {scheme}: the layout shifts by {shift}")
            page.set_viewport_size({"width": 640, "height": 450})
            over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            check(over <= 0, f"{name} {scheme} at 200 %: {over} pixels too wide")
            page.set_viewport_size({"width": 1280, "height": 900})
            for violation in Axe().run(page).response["violations"]:
                if violation["impact"] in ("serious", "critical"):
                    nodes = "; ".join(node["html"][:200] for node in violation["nodes"][:3])
                    check(False, f"{name} {scheme}: axe: {violation['id']}: {violation['help']}: {nodes}")
            context.close()


def first_load(browser):
    context = open_context(browser)
    page = context.new_page()
    sizes = []
    page.on("response", lambda answer: sizes.append(int(answer.headers.get("content-length", 0))))
    page.goto(base + "/")
    page.wait_for_function("document.fonts.status === 'loaded'")
    check(sum(sizes) < 250_000, f"the first load is {sum(sizes)} bytes")
    check(all(answer is not None for answer in sizes), "every answer is there")
    context.close()


def live(browser):
    """What happens is seen without a reload, in two browsers at once, and in ten tabs."""
    contexts = [open_context(browser), open_context(browser)]
    pages = [context.new_page() for context in contexts]
    for page in pages:
        watch(page, "live")
        page.goto(base + "/jobs?q=name:shop.add")
    times = []
    for round in range(5):
        sent = fleet.add.delay(7000 + round, 1)
        took = [until(lambda: page.locator(f'tr[data-id="{sent.id}"]').count() == 1, "a new job is shown") for page in pages]
        times.append(max(took))
    check(min(times) < 1.0, f"a change is shown within a second: {times}")

    tabs = []
    for number in range(10):
        tab = contexts[0].new_page()
        watch(tab, f"tab {number}")
        answer = tab.goto(base + "/workers", timeout=20_000)
        check(answer.status == 200, f"tab {number} loads")
        tabs.append(tab)
    for number, tab in enumerate(tabs):
        until(lambda: tab.locator(".live span").inner_text().startswith("live"), f"tab {number} is live")
    sent = fleet.add.delay(8000, 1)
    until(lambda: pages[0].locator(f'tr[data-id="{sent.id}"]').count() == 1, "a page beside ten others is live")
    for tab in tabs:
        tab.close()

    for context in contexts:
        context.close()


def start_demo(port):
    """A dashboard of its own, of a made-up fleet."""
    process = subprocess.Popen(
        [os.environ["HOIST"], "dashboard", "--demo", "--port", str(port)], stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True)
    return process, process.stdout.readline().strip().split(": ", 1)[1].rstrip("/")


def away(browser):
    """A dashboard that is killed: pages say so and dim what may be old, and go on when it is back."""
    demo, address = start_demo(0)
    context = open_context(browser)
    page = context.new_page()
    page.goto(address + "/")
    until(lambda: page.locator(".live span").inner_text().startswith("live"), "the page is live")
    check("made-up" in page.locator(".banner").inner_text(), "a made-up fleet says so")
    until(lambda: page.locator("tbody tr").count() > 3, "the made-up fleet is seen within seconds", 15)
    demo.kill()
    demo.wait()
    until(lambda: "disconnected" in page.locator(".live span").inner_text(), "a lost dashboard is told")
    check(page.locator("main.away").count() == 1, "what may be old is dimmed")
    demo, _ = start_demo(address.rsplit(":", 1)[1])
    until(lambda: page.locator(".live span").inner_text().startswith("live"), "the dashboard comes back")
    until(lambda: page.locator("main.away").count() == 0, "what is new is not dimmed")
    demo.kill()
    demo.wait()
    context.close()


def without_scripts(browser):
    context = open_context(browser, java_script_enabled=False)
    page = context.new_page()
    for name, path in PAGES.items():
        check(page.goto(base + path).status == 200, f"{name} without scripts")
    page.goto(base + "/")
    page.fill('input[name="q"]', "state:failed name:shop.*")
    page.press('input[name="q"]', "Enter")
    check(page.locator('tbody tr:has-text("shop.fail")').count() >= 1, "a search finds the failed task")
    page.goto(base + "/jobs?q=state:gone")
    check("there is no state gone" in page.locator(".mistake").inner_text(), "a mistake is told")
    context.close()


def keys(browser):
    context = open_context(browser)
    page = context.new_page()
    watch(page, "keys")
    page.goto(base + "/")
    page.keyboard.press("/")
    check(page.evaluate("document.activeElement.name") == "q", "/ goes to the search")
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    with page.expect_navigation():
        page.keyboard.press("j")
    check(page.url.endswith("/jobs"), f"g j goes to the jobs: {page.url}")
    page.keyboard.press("j")
    page.keyboard.press("j")
    check(page.locator("tr.here").count() == 1, "j chooses a row")
    with page.expect_navigation():
        page.keyboard.press("o")
    check("/jobs/" in page.url, f"o opens the row: {page.url}")
    page.keyboard.press("?")
    check(page.locator("dialog[open]").count() == 1, "? shows the keys")
    page.keyboard.press("Escape")
    check(page.locator("dialog[open]").count() == 0, "Escape closes them")
    page.keyboard.press("Tab")
    check(page.evaluate("document.activeElement !== document.body"), "Tab reaches something")
    page.goto(base + "/")
    page.keyboard.press("Tab")
    check(page.evaluate("document.activeElement.className") == "skip", "the first stop skips to the content")
    before = page.evaluate("document.documentElement.dataset.theme || ''")
    page.click(".theme")
    after = page.evaluate("document.documentElement.dataset.theme")
    check(after in ("light", "dark") and after != before, "the theme changes")
    page.reload()
    check(page.evaluate("document.documentElement.dataset.theme") == after, "the theme is remembered")
    context.close()


def acts(browser):
    """A failed Swift job is tried again; a waiting Python task is revoked; a worker gets a slot."""
    context = open_context(browser)
    page = context.new_page()
    watch(page, "acts")
    page.goto(base + "/jobs?q=" + "state:failed%20name:swift.fail")
    page.locator("tbody tr th a").first.click()
    check("it broke" in page.locator("main").inner_text(), "the error is shown")
    with page.expect_navigation():
        page.click('button:has-text("Retry")')
    check("waits in its queue again" in page.locator(".notice").inner_text(), "the retry is told")

    sent = fleet.add.apply_async((1, 2), queue="nobody")
    page.goto(base + "/jobs?q=id:" + sent.id)
    until(lambda: page.locator("tbody tr").count() == 1, "a task that waits is shown")
    page.locator("tbody tr th a").click()
    with page.expect_navigation():
        page.click('button:has-text("Cancel")')
    until(lambda: fleet.app.AsyncResult(sent.id).state == "REVOKED", "the waiting task is revoked")

    page.goto(base + "/workers")
    page.locator('tbody tr:has-text("Celery") th a').first.click()
    check("shop.add" in page.locator("main").inner_text(), "the names that a Python worker knows are shown")
    with page.expect_navigation():
        page.click('button:has-text("One slot more")')
    check("was told" in page.locator(".notice").inner_text(), "the worker got a slot")

    page.goto(base + "/queues/nobody")
    answers = []

    def answer(dialog):
        answers.append(dialog.message)
        dialog.dismiss() if len(answers) == 1 else dialog.accept()

    page.on("dialog", answer)
    page.click('button:has-text("Purge")')
    check(len(answers) == 1 and page.url.endswith("/queues/nobody"), "a purge is asked about, and can be left")
    with page.expect_navigation():
        page.click('button:has-text("Purge")')
    check(len(answers) == 2, "a purge is asked about each time")

    page.goto(base + "/audit")
    text = page.locator("main").inner_text()
    check(all(act in text for act in ("retry", "cancel", "grow", "purge")), "all of it stands in the audit log")
    context.close()


with sync_playwright() as playwright:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or "/usr/bin/chromium"
    browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
    context = open_context(browser)
    page = context.new_page()
    fleet.nap.delay(600)
    results = [fleet.add.delay(number, 1) for number in range(30)] + [fleet.fail.delay("out of stock") for _ in range(3)]
    until(lambda: page.goto(base + "/jobs?q=name:shop.fail%20state:failed").ok and page.locator("tbody tr").count() == 3,
          "the Python tasks that failed are there")
    until(lambda: page.goto(base + "/jobs?q=name:swift.fail%20state:failed").ok and page.locator("tbody tr").count() >= 1,
          "the Swift jobs that failed are there")
    job = page.locator("tbody tr").first.get_attribute("data-id")
    page.goto(base + "/workers")
    worker = page.locator('tbody tr:has-text("Celery")').first.get_attribute("data-id")
    context.close()
    print("fleet", worker, job, flush=True)
    for part in (first_load, live, away, without_scripts, keys, acts):
        begin = time.monotonic()
        part(browser)
        print(part.__name__, f"{time.monotonic() - begin:.1f} s", flush=True)
    begin = time.monotonic()
    looks(browser, worker, job)
    print("looks", f"{time.monotonic() - begin:.1f} s", flush=True)
    browser.close()
print(f"{len(problems)} problems")
sys.exit(1 if problems else 0)
