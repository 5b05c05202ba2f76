"""Uses the page of ImageService as a person does, in a real Chromium, and kills the server and a worker by its buttons.

usage: image_service.py URL FOLDER     FOLDER: screenshots are put there
The service runs as a demo. The server and at least two workers are processes that are started again when they are killed.
"""
import re
import shutil
import sys
import time

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

if len(sys.argv) != 3:
    sys.exit("usage: image_service.py URL FOLDER")
base, folder = sys.argv[1].rstrip("/"), sys.argv[2]
UNFINISHED = ("waiting", "scheduled", "retrying", "running")
complaints = []


class Wrong(Exception):
    """What the page does wrong."""


def check(condition, what):
    if not condition:
        raise Wrong(what)


def until(condition, what, seconds=30):
    """Waits for a condition. `what` is a text, or a function that gives one when the time is over."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Wrong(f"{what() if callable(what) else what}: not within {seconds} s")
        time.sleep(0.02)


def watch(page):
    """Whatever the browser complains of is a fault, except that a killed server does not answer."""
    def hear(message):
        if message.type in ("error", "warning") and "net::ERR_" not in message.text:
            complaints.append(f"console: {message.text} ({message.location.get('url', '')})")

    page.on("console", hear)
    page.on("pageerror", lambda error: complaints.append(f"error of the script: {error}"))


def paint(page, prompt, size, mode="queue", seed=7):
    """Sends the form. Returns the id of the picture when it is in the gallery."""
    before = ids(page)
    page.fill("#prompt", prompt)
    page.select_option("#size", str(size))
    page.fill("#seed", str(seed))
    page.check(f'input[name="mode"][value="{mode}"]')
    page.click("#paint")

    def arrived():
        return [card for card in ids(page) if card not in before]

    until(arrived, lambda: f"{prompt} is in the gallery (the form says: {page.locator('#mistake').text_content()!r})", 15)
    added = arrived()
    check(len(added) == 1, f"one picture is added for {prompt}, not {len(added)}")
    return added[0]


def ids(page):
    return page.locator("#sheet > li").evaluate_all("cards => cards.map((card) => card.dataset.id)")


def card(page, picture):
    return page.locator(f'#sheet > li[data-id="{picture}"]')


def state(page, picture):
    return card(page, picture).evaluate_all("cards => cards[0]?.dataset.state ?? 'not in the gallery'")


def text(page, picture):
    return card(page, picture).evaluate_all("cards => cards[0]?.innerText ?? ''")


def reach(page, picture, wanted, what, seconds=90):
    until(lambda: state(page, picture) == wanted, lambda: f"{what} (the card says: {text(page, picture)!r})", seconds)


def shown(page, picture):
    """The width of the finished picture, once it is loaded and its previews are gone; else 0."""
    return card(page, picture).locator(".view img").evaluate_all("""([image, ...others]) =>
        image?.alt.startsWith("Picture of") && image.classList.contains("shown") && !others.length ? image.naturalWidth : 0""")


def finished(page):
    picture = paint(page, "<b>salt</b> & \"copper\"", 256)
    reach(page, picture, "succeeded", "a queue picture is painted")
    until(lambda: shown(page, picture), "the finished picture is shown")
    width = shown(page, picture)
    check(width == 256, f"the picture is 256 pixels wide, not {width}")
    check(card(page, picture).locator("h3").text_content() == '<b>salt</b> & "copper"', "a prompt is shown as it was written")
    check(page.locator("#sheet b").count() == 0, "a prompt is never HTML")
    words = card(page, picture).locator(".state").text_content()
    check(re.fullmatch(r"painted in [\d.]+ s by (Swift|Python)", words), f"the painter and the seconds are told: {words!r}")
    address = card(page, picture).locator("a.open").evaluate("link => link.href")
    answer = page.request.get(address)
    check(answer.ok and answer.body().startswith(b"\x89PNG"), f"{address} is a PNG picture: status {answer.status}")


def killed_server(page):
    """The background picture dies with the server; the queue picture is painted all the same."""
    background = paint(page, "moth wings, magnified", 1024, "background", seed=15)
    until(lambda: card(page, background).locator("img").count() > 0, "a preview of the background picture is shown", 15)
    queued = paint(page, "a lighthouse, from memory", 1024, seed=6)
    before = [state(page, picture) for picture in (background, queued)]
    check(all(each in UNFINISHED for each in before), f"both pictures are unfinished when the server is killed: {before}")
    process = page.locator("#server").get_attribute("data-pid")
    page.click("#kill-server")
    until(lambda: page.locator("body.away").count() == 1, "the page says that the server is away", 15)
    words = page.locator("#banner").inner_text()
    check("reconnects by itself" in words, f"the page says that it reconnects: {words!r}")
    check("away" in page.locator("#server").inner_text(), "the server is shown as away")
    until(lambda: page.locator("body.away").count() == 0, "the page reconnects by itself", 60)
    now = page.locator("#server").get_attribute("data-pid")
    check(now != process, f"another server process answers: it was {process}, it is {now}")
    reach(page, background, "lost", "the background picture is shown as lost", 15)
    words = card(page, background).locator(".state").inner_text()
    check(words == "lost with the server", f"the background picture is lost with the server: {words!r}")
    page.reload()
    reach(page, background, "lost", "the background picture is lost after a reload, too", 15)
    reach(page, queued, "succeeded", "the queue picture is painted although the server died", 120)


def killed_worker(page):
    """The worker that is killed may be another, or the picture may be done by then: some tries."""
    seen = []
    for seed in range(1, 7):
        picture = paint(page, "a city seen from a train", 512, seed=seed)
        until(lambda: state(page, picture) not in ("waiting", "not in the gallery"), "a worker takes the picture", 60)
        page.click("#kill-worker")
        reach(page, picture, "succeeded", "the picture is painted although a worker died", 120)
        words = card(page, picture).locator(".detail").text_content()
        if "another took over" in words:
            return
        seen.append(words)
        until(lambda: page.locator("#workers li").count() > 1, "the killed worker is started again", 60)
    raise Wrong(f"a worker took over a picture in none of {len(seen)} tries: {seen}")


def cancelled(page):
    """A retry may keep the id of the picture or give it another."""
    before = ids(page)
    picture = paint(page, "tectonic lullaby", 1024, seed=8)
    card(page, picture).locator('button:has-text("Cancel")').click()
    reach(page, picture, "cancelled", "the picture is cancelled", 30)
    card(page, picture).locator('button:has-text("Retry")').click()
    until(lambda: any(state(page, each) == "succeeded" for each in ids(page) if each not in before),
          lambda: f"the cancelled picture is painted after a retry (the card says: {text(page, picture)!r})", 120)


def looks(page):
    """Both themes on a wide screen and a phone: nothing overflows, and axe finds nothing."""
    until(lambda: page.locator("#banner.shown").count() == 0, "the line of the reconnection goes by itself")
    page.mouse.move(0, 0)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for name, width, height in ((f"gallery-{scheme}", 1280, 900), ("phone", 360, 740)):
            page.set_viewport_size({"width": width, "height": height})
            page.evaluate("scrollTo(0, 0)")
            over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            check(over <= 0, f"{scheme} at {width}: {over} pixels too wide")
            if name != "phone" or scheme == "light":
                page.screenshot(path=f"{folder}/{name}.png")
            for violation in Axe().run(page).response["violations"]:
                nodes = "; ".join(node["html"][:200] for node in violation["nodes"][:3])
                raise Wrong(f"{scheme} at {width}: axe: {violation['id']}: {violation['help']}: {nodes}")


with sync_playwright() as playwright:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or "/usr/bin/chromium"
    browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light", reduced_motion="reduce")
    try:
        watch(page)
        answer = page.goto(base + "/")
        check(answer.ok, f"the page: status {answer.status}")
        until(lambda: page.locator('#server[data-state="up"]').count() == 1, "the page shows that the server is up")
        check(page.locator("#kill-server").is_visible(), "the service runs as a demo, with the buttons that kill")
        until(lambda: page.locator("#workers li").count() > 1, "two workers are shown")
        for part in (finished, killed_server, killed_worker, cancelled, looks):
            begin = time.monotonic()
            part(page)
            print(part.__name__, f"{time.monotonic() - begin:.1f} s", flush=True)
        check(not complaints, f"the browser complains: {complaints}")
    except Exception as error:
        print("WRONG:", error, flush=True)
        if complaints:
            print("The browser complains:", *complaints, sep="\n  ", flush=True)
        page.screenshot(path=f"{folder}/wrong.png", full_page=True)
        sys.exit(1)
    finally:
        browser.close()
print("ok")
