// Which view is shown, signing in and out, and looking again every two seconds.

import { get, key, Problem } from "./api.js";
import { make } from "./dom.js";
import { eventView } from "./event.js";
import { eventsView } from "./events.js";
import { find } from "./find.js";
import { notificationView } from "./journey.js";
import { lettersView } from "./letters.js";
import { outboxView } from "./outbox.js";
import { show } from "./patch.js";

const LOOK_AGAIN_MS = 2000;
const VIEWS = { events: (id) => (id ? eventView(id) : eventsView()), notifications: notificationView, letters: lettersView, outbox: outboxView };

const main = document.getElementById("main");
const top = document.getElementById("top");
const live = document.getElementById("live");

let looking = new AbortController();

/** Shows what the address names, until it names something else. */
async function go({ focus = true } = {}) {
  looking.abort();
  looking = new AbortController();
  if (!key.get()) return signIn();
  const [, name = "events", ...rest] = location.hash.split("/").map(decodeURIComponent);
  const view = (VIEWS[name] ?? VIEWS.events)(rest[0] ?? null);
  document.title = `${view.title} · Tocsin`;
  top.hidden = false;
  mark(VIEWS[name] ? name : "events");
  main.replaceChildren(make("p.hint", null, "Loading…"));
  // A new view begins at its top for those who hear it too; a page that was just opened begins with its header.
  if (focus) main.focus({ preventScroll: true });
  scrollTo(0, 0);
  await follow(view, looking.signal);
}

/** Loads and draws again and again; what has not changed is not drawn again, so that nobody loses their place. */
async function follow(view, signal) {
  let drawn = null;
  while (!signal.aborted) {
    if (!document.hidden) {
      try {
        const data = await view.load(signal);
        const text = JSON.stringify(data);
        if (!signal.aborted && text !== drawn) show(main, view.draw(data));
        drawn = text;
        say("");
      } catch (error) {
        if (signal.aborted) return;
        if (trouble(error, drawn === null)) return;
      }
    }
    await pause(signal);
  }
}

/** Tells of a problem. Answers whether looking again would be of no use. */
function trouble(error, nothingShown) {
  if (!(error instanceof Problem)) throw error;
  if (error.status === 401 || error.status === 403) {
    key.forget();
    signIn(error.message);
    return true;
  }
  if (error.status >= 400 && error.status < 500) {
    show(main, make("section.notice", null, make("h1", null, "Not found"), make("p", null, error.message),
      make("p", null, make("a", { href: "#/events" }, "All events"))));
    return true;
  }
  say(error.status ? `${error.message} Trying again` : "No connection; trying again");
  if (nothingShown) show(main, make("p.notice", null, error.message));
  return false;
}

/** Says how the connection is, once: a status that is said every two seconds could not be borne by those who hear it. */
function say(text) {
  const shown = text || "Live";
  if (live.textContent !== shown) live.textContent = shown;
  live.classList.toggle("broken", text !== "");
}

function mark(section) {
  for (const link of document.querySelectorAll("#sections a")) {
    if (link.dataset.section === section) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function pause(signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, LOOK_AGAIN_MS);
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}

function signIn(problem = "") {
  looking.abort();
  top.hidden = true;
  document.title = "Sign in · Tocsin";
  main.replaceChildren(document.getElementById("sign-in-page").content.cloneNode(true));
  document.getElementById("key-problem").textContent = problem;
  document.getElementById("sign-in").addEventListener("submit", signedIn);
  document.getElementById("key").focus();
}

async function signedIn(submitted) {
  submitted.preventDefault();
  const field = document.getElementById("key");
  key.keep(field.value.trim());
  try {
    await get("/api/events", { limit: 1 });
  } catch (error) {
    key.forget();
    document.getElementById("key-problem").textContent = error.message;
    field.setAttribute("aria-invalid", "true");
    field.select();
    return;
  }
  await enter();
}

async function enter({ focus = true } = {}) {
  const outbox = document.getElementById("outbox-link");
  outbox.hidden = !(await get("/api/sandbox/outbox", { limit: 1 }).then(() => true, () => false));
  await go({ focus });
}

// Followed as a link it would take the place of the view in the address.
document.querySelector(".skip").addEventListener("click", (clicked) => {
  clicked.preventDefault();
  main.focus();
});
document.getElementById("sign-out").addEventListener("click", () => {
  key.forget();
  location.hash = "";
  signIn();
});
document.getElementById("find").addEventListener("submit", async (submitted) => {
  submitted.preventDefault();
  const field = document.getElementById("find-id");
  const place = await find(field.value.trim()).catch(() => null);
  field.setCustomValidity(place ? "" : "Nothing has this id.");
  if (place) location.hash = place;
  else field.reportValidity();
});
document.getElementById("find-id").addEventListener("input", (typed) => typed.target.setCustomValidity(""));
addEventListener("hashchange", () => {
  if (location.hash.startsWith("#/")) go();
});
if (key.get()) enter({ focus: false });
else signIn();
