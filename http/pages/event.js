// One event: what was posted, how far it is, and what became of it for each person.

import { get } from "./api.js";
import { channelName, facts, make, moment, offset, standings, statusMark, table, words } from "./dom.js";
import { bar, strategy } from "./events.js";

const MOST_DELIVERIES = 200;

/** The view of one event. */
export function eventView(id) {
  return {
    title: "Event",
    load: async (signal) => {
      const event = await get(`/api/events/${encodeURIComponent(id)}`, {}, { signal });
      const found = await get("/api/deliveries", { reference: id, limit: MOST_DELIVERIES }, { signal });
      return { event, deliveries: found.data, more: found.nextCursor !== null };
    },
    draw: ({ event, deliveries, more }) => [
      make("p.crumbs", null, make("a", { href: "#/events" }, "Events"), " / ", event.type),
      head(event),
      event.title ? make("p.message", null, event.message) : null,
      event.error ? make("p.problem", null, event.error) : null,
      counts(event.counts),
      make("h2", null, "People"),
      deliveries.length ? people(event, deliveries) : make("p.hint", null, "Not routed yet."),
      more ? make("p.hint", null, `These are the first ${MOST_DELIVERIES} deliveries.`) : null,
      make("h2", null, "What was posted"),
      make("div.panel", null, audit(event)),
    ],
  };
}

function head(event) {
  return make("div.head", null, make("div", null,
    make("h1", null, event.title ?? event.message),
    make("div.marks", null, statusMark(event.status), statusMark(event.notificationPriority),
      event.cancelledAt ? statusMark("WITHDRAWN") : null)));
}

function counts(found) {
  const numbers = [["People", found.recipients ?? found.matched ?? "…"], ["Notifications", found.notifications], ["Read", found.read],
    ...standings(found.deliveries).filter(([status]) => status !== "SUPPRESSED").map(([status, count]) => [words(status), count]),
    ...Object.entries(found.suppressed).map(([reason, count]) => [`Suppressed: ${words(reason).toLowerCase()}`, count])];
  if (found.unknown) numbers.push(["Unknown ids", found.unknown]);
  return make("section", { "aria-label": "Counts" }, bar(found.deliveries),
    make("ul.counts", null, numbers.map(([name, count]) => make("li", null, make("b", null, String(count)), make("span", null, name)))));
}

function people(event, deliveries) {
  const byPerson = Map.groupBy(deliveries, (delivery) => delivery.notificationId);
  const rows = [...byPerson].map(([notification, own]) => {
    const plan = own.toSorted((one, other) => one.step - other.step);
    return [notification, [
      make("a", { href: `#/notifications/${notification}` }, plan[0].recipientId ?? notification),
      make("div.marks.wide", null, plan.map((delivery) => make("span", null, `${channelName(delivery.channel)} `, statusMark(delivery.status)))),
    ]];
  });
  return table(`People of ${event.title ?? event.type}`, ["Person", "Deliveries"], rows);
}

function audit(event) {
  const start = event.acceptedAt;
  const plan = event.steps.map((step) => `${channelName(step.channel)} ${offset(Date.parse(start) + step.afterMs, start)}`);
  return facts([
    ["Event", make("span.id", null, event.id)],
    ["Accepted", moment(start)],
    ["Fanned out", event.completedAt ? moment(event.completedAt) : null],
    ["Strategy", strategy(event)],
    ["Policy", event.policy],
    ["Plan", plan.join(", ")],
    ["Posted by", event.sender],
    ["Source", words(event.source)],
    ["Correlation id", make("span.id", null, event.correlationId)],
    ["Withdrawn", event.cancelledAt ? make("span", null, moment(event.cancelledAt), ` by ${event.cancelledBy}: ${event.cancelReason}`) : null],
    ["Unknown ids", event.unknownIds.length ? event.unknownIds.join(", ") : null],
    ["Metadata", Object.keys(event.metadata).length ? make("code", null, JSON.stringify(event.metadata)) : null],
  ]);
}
