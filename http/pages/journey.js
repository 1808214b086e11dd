// The journey of one notification as a timeline: what happened, and below it what is still to come.

import { get, Problem } from "./api.js";
import { channelName, facts, make, moment, offset, statusMark, table, tone, words } from "./dom.js";

const WAITING = ["SCHEDULED", "RETRYING"];
const OF_THE_WHOLE = {
  ACCEPTED: "The event was accepted",
  LISTED: "It stands in the inbox",
  READ: "It was read",
  CANCELLED: "The event was withdrawn by its sender",
};

/** The view of one notification. */
export function notificationView(id) {
  return {
    title: "Notification",
    load: async (signal) => {
      const journey = await get(`/api/notifications/${encodeURIComponent(id)}/journey`, {}, { signal });
      return { ...journey, messages: await messages(id, signal) };
    },
    draw: (data) => [
      make("p.crumbs", null,
        make("a", { href: "#/events" }, "Events"), " / ",
        make("a", { href: `#/events/${data.notification.eventId}` }, data.notification.type), " / ",
        data.notification.recipientId),
      head(data.notification),
      data.notification.title ? make("p.message", null, data.notification.message) : null,
      make("h2", null, "Journey"),
      timeline(data),
      make("h2", null, "Deliveries"),
      deliveries(data.deliveries),
      make("h2", null, "Notification"),
      make("div.panel", null, about(data.notification)),
    ],
  };
}

/** The sandbox's messages of a notification by delivery; none where there is no sandbox. */
async function messages(id, signal) {
  try {
    const found = await get("/api/sandbox/outbox", { notification: id, limit: 200 }, { signal });
    return Object.fromEntries(found.data.map((message) => [`${message.deliveryId} ${message.attempt}`, message.id]));
  } catch (error) {
    if (error instanceof Problem && [403, 404].includes(error.status)) return {};
    throw error;
  }
}

function head(notification) {
  return make("div.head", null, make("div", null,
    make("h1", null, notification.title ?? notification.message),
    make("div.marks", null, statusMark(notification.read ? "READ" : "UNREAD"), statusMark(notification.priority),
      make("span", null, `to ${notification.recipientId}`))));
}

function timeline({ notification, deliveries: all, journey, messages: found }) {
  const start = notification.createdAt;
  const byId = new Map(all.map((delivery) => [delivery.id, delivery]));
  const unseen = { ...found };
  const past = journey.map((step) => happening(step, byId.get(step.deliveryId), start, unseen));
  const ahead = all.filter((delivery) => WAITING.includes(delivery.status))
    .map((delivery) => [delivery.nextAttemptAt ?? delivery.scheduledFor, delivery])
    .filter(([due]) => due)
    .toSorted(([one], [other]) => (one < other ? -1 : 1))
    .map(([due, delivery]) => entry("ahead", due, start,
      make("div.line", null, make("strong", null, channelName(delivery.channel)),
        `${delivery.status === "RETRYING" ? "is tried again" : "goes out"} unless it is read before`)));
  return make("ol.timeline", null, past, ahead);
}

/** One step. The first SENT of an attempt takes its message out of `unseen`, and links to it. */
function happening(step, delivery, start, unseen) {
  if (!step.deliveryId) {
    return entry(tone(step.what), step.at, start, make("div.line", null, make("strong", null, OF_THE_WHOLE[step.what] ?? words(step.what))));
  }
  const attempt = `${step.deliveryId} ${step.attempt}`;
  const message = step.what === "SENT" ? unseen[attempt] : undefined;
  if (message !== undefined) delete unseen[attempt];
  const more = [
    step.reason && words(step.reason),
    step.attempt > 1 && `attempt ${step.attempt}`,
    step.what === "SCHEDULED" && delivery?.scheduledFor && `for ${offset(delivery.scheduledFor, start)}`,
    step.what === "RETRYING" && step.dueAt && `next attempt ${offset(step.dueAt, start)}`,
    step.provider, step.providerStatus, step.providerId,
    step.errorCode && `code ${step.errorCode}`,
    step.error !== step.reason && step.error,
  ].filter(Boolean).join(" · ");
  return entry(tone(step.what), step.at, start,
    make("div.line", null,
      make("strong", null, channelName(step.channel)), statusMark(step.what),
      message === undefined ? null : make("a", { href: `#/outbox/${message}` }, "see the message")),
    more ? make("div.more", null, more) : null);
}

function entry(kind, at, start, ...what) {
  return make(`li.${kind}`, null,
    make("div.when", null, moment(at), make("span", null, offset(at, start))),
    make("div.rail", { "aria-hidden": "true" }),
    make("div.what", null, kind === "ahead" ? make("span.visually-hidden", null, "Still to come: ") : null, what));
}

function deliveries(all) {
  const columns = ["Step", "Channel", "Status", "Attempts", "Address", "Scheduled", "Sent", "Delivered", "Provider"];
  return table("Deliveries in the order of the plan", columns, all.map((delivery) => [delivery.id, [
    String(delivery.step),
    channelName(delivery.channel),
    make("span", null, statusMark(delivery.status), delivery.reason ? make("span.sub", null, words(delivery.reason)) : null),
    delivery.maxAttempts ? `${delivery.attemptCount} of ${delivery.maxAttempts}` : String(delivery.attemptCount),
    delivery.address && make("span.wrap", null, delivery.address),
    moment(delivery.scheduledFor), moment(delivery.sentAt), moment(delivery.deliveredAt),
    delivery.provider && make("span", null, delivery.provider, make("span.sub", null, delivery.providerStatus ?? "")),
  ]]));
}

function about(notification) {
  return facts([
    ["Notification", make("span.id", null, notification.id)],
    ["Event", make("a.id", { href: `#/events/${notification.eventId}` }, notification.eventId)],
    ["Person", notification.recipientId],
    ["Accepted", moment(notification.createdAt)],
    ["In the inbox", notification.listedAt ? moment(notification.listedAt) : null],
    ["Read", notification.readAt ? moment(notification.readAt) : null],
    ["Correlation id", notification.correlationId && make("span.id", null, notification.correlationId)],
  ]);
}
