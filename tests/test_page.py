"""The page at `/`, as a person uses it in a browser: signing in, events, a journey, the outbox."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.browser import Browser, browsing, find_chromium
from tests.missing import missing
from tests.program import Program, eventually

pytestmark = [pytest.mark.servers, pytest.mark.processes]

HOSTILE = '<img src=x onerror="document.title=1"><script>document.title=1</script>'

TOO_WIDE = """[...document.querySelectorAll('body *')]
  .filter(each => each.getBoundingClientRect().right > document.documentElement.clientWidth
    || each.matches('.when') && each.scrollWidth > each.clientWidth)
  .map(each => each.outerHTML.slice(0, 90))"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = find_chromium()
    if program is None:
        missing("there is no Chromium here (Debian: apt install chromium)")
    with browsing(program, tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def key(sandbox_server: Program) -> str:
    return Path(sandbox_server.environ["TOCSIN_DATA__DIR"], "admin_key").read_text().strip()


@pytest.fixture
def api(sandbox_server: Program, key: str) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=sandbox_server.url, headers=headers, timeout=20) as made:
        yield made


@pytest.fixture
def signed_out(chromium: Browser, sandbox_server: Program) -> Browser:
    """The page, with nobody signed in."""
    chromium.open(f"{sandbox_server.url}/")
    chromium.wait("document.readyState === 'complete'")
    chromium.run("sessionStorage.clear()")
    chromium.open("about:blank")
    chromium.complaints.clear()
    chromium.requested.clear()
    chromium.open(f"{sandbox_server.url}/")
    chromium.wait("document.activeElement?.id === 'key'")
    return chromium


@pytest.fixture
def page(signed_out: Browser, key: str) -> Browser:
    """The page, with the admin signed in by keyboard."""
    signed_out.type(key)
    signed_out.press("Enter")
    signed_out.wait("document.querySelector('h1')?.innerText === 'Events'")
    return signed_out


def posted(api: httpx.Client, **event: Any) -> dict[str, Any]:
    person = {"id": "page-1", "name": "Asha", "email": "asha@example.org", "phone": "+14155550123"}
    body = {"type": "event.approval", "message": "It is approved", "recipients": [person], **event}
    answer = api.post("/api/notifications", json=body)
    assert answer.status_code == 202, answer.text
    made: dict[str, Any] = answer.json()
    return made


def show(page: Browser, place: str) -> None:
    page.run(f"location.hash = {json.dumps(place)}")


def test_a_key_that_is_wrong_is_told_and_forgotten(signed_out: Browser) -> None:
    signed_out.type("tk_wrong")
    signed_out.press("Enter")
    signed_out.wait("document.getElementById('key-problem').innerText.includes('not valid')")
    assert signed_out.run("sessionStorage.length") == 0
    assert signed_out.run("document.activeElement.id") == "key"


def test_the_key_stays_in_the_tab_and_is_in_no_address(page: Browser, key: str) -> None:
    assert page.run("Object.values(sessionStorage)") == [key]
    assert page.run("localStorage.length") == 0
    assert page.run("document.cookie") == ""
    assert not [url for url in [*page.requested, page.run("location.href")] if key in url]


def test_signing_out_forgets_the_key(page: Browser) -> None:
    page.run("document.getElementById('sign-out').click()")
    page.wait("document.activeElement?.id === 'key'")
    assert page.run("sessionStorage.length") == 0
    assert page.run("document.querySelector('table')") is None


def test_an_event_appears_by_itself_with_its_counts(page: Browser, api: httpx.Client) -> None:
    event = posted(api, title="Appears by itself", notificationPriority="HIGH")["id"]
    row = f"document.querySelector('tr[data-key=\"{event}\"]')"
    page.wait(f"{row}?.innerText.includes('Appears by itself')")
    page.wait(f"{row}.querySelector('.bar').getAttribute('aria-label') === '2 delivered, 1 sent, 1 suppressed'")


def test_the_focus_stays_when_something_new_appears_above(page: Browser, api: httpx.Client) -> None:
    first = posted(api, title="Has the focus")["id"]
    page.wait(f"document.querySelector('tr[data-key=\"{first}\"] a')")
    page.run(f"document.querySelector('tr[data-key=\"{first}\"] a').focus()")
    second = posted(api, title="Comes above")["id"]
    page.wait(f"document.querySelector('tr[data-key=\"{second}\"]')")
    assert page.run("document.activeElement.innerText") == "Has the focus"


def test_an_event_leads_to_its_people_and_a_person_to_the_journey(page: Browser, api: httpx.Client) -> None:
    made = posted(api, title="Followed", notificationPriority="HIGH", recipientIds=["nobody-knows"])
    show(page, f"#/events/{made['id']}")
    page.wait("document.querySelector('h1')?.innerText === 'Followed'")
    page.wait("document.querySelector('main').innerText.includes('nobody-knows')")
    page.wait("document.querySelector('tbody a')")
    page.run("document.querySelector('tbody a').click()")
    page.wait("document.querySelector('.timeline')?.innerText.includes('It stands in the inbox')")
    page.wait("[...document.querySelectorAll('.timeline li')].some((li) => /SMS\\s+Delivered/.test(li.innerText))")
    assert page.run("location.hash") == f"#/notifications/{made['notifications'][0]['id']}"


def test_what_is_still_to_come_stands_below_what_happened(page: Browser, api: httpx.Client) -> None:
    made = posted(api, title="Waits", deliveryStrategy="ESCALATION")
    show(page, f"#/notifications/{made['notifications'][0]['id']}")
    page.wait("document.querySelectorAll('.timeline li.ahead').length === 2")
    assert "+10 min" in page.text(".timeline li.ahead")
    assert page.run("document.querySelector('.timeline li:last-child').innerText").count("+40 min") == 1


def test_a_mail_of_the_outbox_is_shown_as_text_and_as_html_in_a_frame_without_rights(
    page: Browser, api: httpx.Client
) -> None:
    made = posted(api, title="A mail", channels=["EMAIL"], notificationPriority="HIGH")
    note = made["notifications"][0]["id"]
    found = eventually(lambda: api.get("/api/sandbox/outbox", params={"notification": note}).json()["data"])
    show(page, f"#/outbox/{found[0]['id']}")
    page.wait("document.querySelector('iframe')?.srcdoc.includes('It is approved')")
    assert page.run("document.querySelector('iframe').getAttribute('sandbox')") == ""
    assert "It is approved" in page.text(".letter-text")
    assert "Sandbox" in page.text(".banner")


def test_what_callers_wrote_is_text_and_never_html(page: Browser, api: httpx.Client) -> None:
    made = posted(api, title=HOSTILE, message=HOSTILE, notificationPriority="HIGH")
    note = made["notifications"][0]["id"]
    eventually(lambda: api.get("/api/sandbox/outbox", params={"notification": note, "channel": "EMAIL"}).json()["data"])
    for place in ("#/events", f"#/events/{made['id']}", f"#/notifications/{note}", "#/outbox/EMAIL", "#/outbox/SMS"):
        show(page, place)
        page.wait("document.querySelector('main').innerText.includes('onerror')")
        assert page.run("document.querySelectorAll('main img, main script').length") == 0
        assert page.run("document.title").endswith("Tocsin")


def test_an_id_is_found_whatever_it_is_of(page: Browser, api: httpx.Client) -> None:
    made = posted(api, title="To be found", channels=["SMS"], notificationPriority="HIGH")
    note = made["notifications"][0]["id"]

    def deliveries() -> list[dict[str, Any]]:
        rows = api.get(f"/api/notifications/{note}/delivery-status").json().get("deliveries", [])
        return [row for row in rows if row["providerId"]]

    (delivery,) = eventually(deliveries)
    for identifier in (made["id"], note, delivery["id"], delivery["providerId"]):
        show(page, "#/events")
        page.wait("document.querySelector('h1')?.innerText === 'Events'")
        page.run("document.getElementById('find-id').value = ''; document.getElementById('find-id').focus()")
        page.type(identifier)
        page.press("Enter")
        page.wait("document.querySelector('h1')?.innerText === 'To be found'")


def test_what_was_given_up_is_shown_by_cause(page: Browser, api: httpx.Client) -> None:
    event = posted(api, recipients=[{"id": "letters", "phone": "+15005550001"}], channels=["SMS"])
    (note,) = [each["id"] for each in event["notifications"]]
    show(page, "#/letters")
    page.wait("document.querySelector('h1')?.innerText === 'Dead letters'")
    page.wait(f"document.querySelector('main a[href=\"#/notifications/{note}\"]')")
    page.wait("document.querySelector('table').innerText.includes('21211')")
    assert api.post("/api/reconciliation/runs", json={"repair": True}).status_code == 201
    page.wait("document.querySelector('.reconciled')?.innerText.includes(': in sync, with ')")


def test_what_does_not_exist_is_said_to_be_so(page: Browser) -> None:
    show(page, "#/events/01a1fe05-4875-7d76-b7b8-396fc73e7214")
    page.wait("document.querySelector('h1')?.innerText === 'Not found'")


def test_nothing_comes_from_elsewhere_and_nothing_breaks(page: Browser, sandbox_server: Program) -> None:
    for place in ("#/outbox", "#/events"):
        show(page, place)
        page.wait("document.querySelector('h1')")
    hosts = {urlsplit(url).netloc for url in page.requested if not url.startswith(("about:", "data:"))}
    assert hosts == {urlsplit(sandbox_server.url).netloc}
    assert list(page.complaints) == []


def test_every_field_has_a_label_and_every_link_its_words(page: Browser) -> None:
    lacking = {
        "input": "!one.labels.length",
        "img": "!one.hasAttribute('alt')",
        "a, button": "!one.textContent.trim()",
        "table": "!one.caption",
        "iframe": "!one.title",
    }
    met = dict.fromkeys(lacking, 0)
    for place in ("#/events", "#/outbox"):
        show(page, place)
        page.wait("document.querySelector('main h1')")
        for what, lack in lacking.items():
            met[what] += page.run(f"document.querySelectorAll('{what}').length")
            assert page.run(f"[...document.querySelectorAll('{what}')].filter((one) => {lack}).length") == 0, what
    assert met["a, button"]
    assert met["table"]


def test_the_first_key_press_offers_to_skip_to_the_content(page: Browser, sandbox_server: Program) -> None:
    page.open("about:blank")
    page.open(f"{sandbox_server.url}/#/outbox")
    page.wait("document.querySelector('h1')?.innerText === 'Sandbox outbox'")
    page.press("Tab")
    assert page.run("document.activeElement.innerText") == "Skip to content"
    page.press("Enter")
    page.wait("document.activeElement.id === 'main'")
    assert page.run("location.hash") == "#/outbox"


CONTRAST = """
(() => {
  const linear = (part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  const light = ([red, green, blue]) =>
    0.2126 * linear(red / 255) + 0.7152 * linear(green / 255) + 0.0722 * linear(blue / 255);
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const [red, green, blue, alpha = 1] = numbers(getComputedStyle(at).backgroundColor);
      if (alpha === 1) return [red, green, blue];
    }
    return [255, 255, 255];
  };
  const ratio = (element) => {
    const both = [light(numbers(getComputedStyle(element).color)), light(ground(element))];
    return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
  };
  const hasText = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.nodeValue.trim());
  return [...document.querySelectorAll("body *")]
    .filter((element) => hasText(element) && element.checkVisibility() && ratio(element) < 4.5)
    .map((element) => `${element.innerText} ${ratio(element).toFixed(2)}`);
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(page: Browser, api: httpx.Client, scheme: str) -> None:
    page.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    note = posted(api, title="Seen well")["notifications"][0]["id"]
    for place in ("#/events", f"#/notifications/{note}", "#/outbox"):
        show(page, place)
        page.wait("document.querySelector('main h1, main .timeline')")
        # Colours fade in after a change of scheme.
        page.wait("document.getAnimations().length === 0")
        assert page.run(CONTRAST) == []
    page.command("Emulation.setEmulatedMedia", features=[])


def test_the_page_is_served_with_a_strict_policy(sandbox_server: Program) -> None:
    answer = httpx.get(f"{sandbox_server.url}/")
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert "<script>" not in answer.text
    assert " style=" not in answer.text


def test_a_file_that_did_not_change_is_not_sent_again(sandbox_server: Program) -> None:
    first = httpx.get(f"{sandbox_server.url}/page/app.js")
    again = httpx.get(f"{sandbox_server.url}/page/app.js", headers={"If-None-Match": first.headers["etag"]})
    assert (first.status_code, again.status_code, again.content) == (200, 304, b"")


def test_while_the_server_does_not_answer_what_was_shown_stays_and_it_is_said(page: Browser, api: httpx.Client) -> None:
    as_fast_as_it_can = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    event = posted(api, title="Stays")["id"]
    page.wait(f"document.querySelector('tr[data-key=\"{event}\"]')")
    page.command("Network.emulateNetworkConditions", offline=True, **as_fast_as_it_can)
    page.wait("document.getElementById('live').innerText.startsWith('No connection')")
    assert "Stays" in page.text("main")
    page.command("Network.emulateNetworkConditions", offline=False, **as_fast_as_it_can)
    page.wait("document.getElementById('live').innerText === 'Live'")


def test_nothing_is_wider_than_a_telephone(page: Browser, api: httpx.Client) -> None:
    note = posted(api)["notifications"][0]["id"]
    page.command("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1, mobile=False)
    try:
        show(page, f"#/notifications/{note}")
        page.wait("document.querySelectorAll('.timeline li').length > 3")
        assert page.run(TOO_WIDE) == []
        page.open(f"{page.run('location.origin')}/docs")
        page.wait("document.readyState === 'complete' && document.querySelector('details')")
        page.run("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert page.run(TOO_WIDE) == []
    finally:
        page.command("Emulation.clearDeviceMetricsOverride")
