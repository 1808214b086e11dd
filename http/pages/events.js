// The newest events with their counts.

import { get } from "./api.js";
import { channelName, make, moment, standings, statusMark, table, tone, TONE_NAMES, words } from "./dom.js";

const STEP = 50;
const MOST = 200;
let shown = STEP;

/** The view of all events. */
export function eventsView() {
  return {
    title: "Events",
    load: (signal) => get("/api/events", { limit: shown }, { signal }),
    draw: (page) => [
      make("h1", null, "Events"),
      page.data.length ? listing(page.data) : empty(),
      page.nextCursor && shown < MOST ? more() : null,
    ],
  };
}

/** How the deliveries of an event stand, as a bar; those who do not see it hear the numbers. */
export function bar(counts) {
  const parts = standings(counts);
  const told = parts.map(([status, count]) => `${count} ${words(status).toLowerCase()}`).join(", ") || "none yet";
  const sums = TONE_NAMES.map((name) => [name, parts.filter(([status]) => tone(status) === name).reduce((sum, [, count]) => sum + count, 0)]);
  const pieces = sums.filter(([, count]) => count > 0).map(([name, count]) => {
    const piece = make(`i.${name}`);
    piece.style.flexGrow = count;
    return piece;
  });
  return make("div", null, make("div.bar", { role: "img", "aria-label": told }, pieces), make("span.sub", { "aria-hidden": "true" }, told));
}

/** "ESCALATION" as a word, and what was asked where that was something else. */
export function strategy(event) {
  const asked = event.askedStrategy;
  return words(event.deliveryStrategy) + (asked && asked !== event.deliveryStrategy ? ` (${words(asked).toLowerCase()} was asked)` : "");
}

function listing(events) {
  const columns = ["Accepted", "Event", "Priority", "Strategy", "Fan-out", "People", "Read", "Deliveries"];
  return table("Events, the newest first", columns, events.map((event) => [event.id, [
    moment(event.acceptedAt),
    make("div.title-cell", null,
      make("a", { href: `#/events/${event.id}` }, event.title ?? event.message),
      make("span.sub", null, event.type)),
    statusMark(event.notificationPriority),
    make("span", null, strategy(event), make("span.sub", null, event.channels.map(channelName).join(", "))),
    make("div.marks", null, statusMark(event.status), event.cancelledAt ? statusMark("WITHDRAWN") : null),
    String(event.counts.recipients ?? "…"),
    String(event.counts.read),
    bar(event.counts.deliveries),
  ]]));
}

function empty() {
  return make("section.notice", null,
    make("p", null, "Nothing has been posted yet."),
    make("p", null, "Try ", make("code", null, "tocsin demo"), " in a terminal, or post an event as ", make("a", { href: "/docs" }, "the API"), " describes."));
}

function more() {
  const button = make("button.quiet", { type: "button" }, "Show more");
  button.addEventListener("click", () => {
    shown = Math.min(MOST, shown + STEP);
    button.textContent = "Loading…";
  });
  return make("p", null, button);
}
