// What the sandbox received: mail, SMS and push that the real SDKs sent and that never left this machine.

import { get } from "./api.js";
import { channelName, facts, make, moment } from "./dom.js";
import { mailFrame } from "./mail.js";

const CHANNELS = ["EMAIL", "SMS", "PUSH"];
const SHOWN = 100;

/** The view of the outbox; `chosen` is a message's number, or the name of a channel to show alone. */
export function outboxView(chosen) {
  const channel = CHANNELS.includes(chosen) ? chosen : null;
  const number = channel || !chosen ? null : Number(chosen);
  return {
    title: "Sandbox outbox",
    load: (signal) => get("/api/sandbox/outbox", { limit: SHOWN, channel }, { signal }),
    draw: (page) => {
      const open = page.data.find((message) => message.id === number) ?? (number === null ? page.data[0] : null);
      return [
        make("h1", null, "Sandbox outbox"),
        make("p.banner", null, "Sandbox: nothing here left this machine. "
          + `${page.received} ${page.received === 1 ? "message" : "messages"} came in since the start.`),
        filters(channel),
        page.data.length ? make("div.outbox", null, list(page.data, open), letter(open)) : make("p.notice", null, "Nothing has come in yet."),
      ];
    },
  };
}

function filters(channel) {
  const choices = [["All", "#/outbox", null], ...CHANNELS.map((name) => [channelName(name), `#/outbox/${name}`, name])];
  return make("nav.filters", { "aria-label": "Channel" }, choices.map(([text, href, name]) =>
    make("a", { href, "aria-current": name === channel ? "true" : null }, text)));
}

function list(messages, open) {
  return make("ul.letters", { "aria-label": "Messages, the newest first" }, messages.map((message) =>
    make("li", { "data-key": `${message.id}` }, make("a", {
      href: `#/outbox/${message.id}`, "aria-current": message === open ? "true" : null,
    },
    make("span.line", null, make("span", null, channelName(message.channel)), moment(message.receivedAt)),
    make("strong", null, message.subject ?? message.to),
    make("span.peek", null, message.subject ? message.to : message.text)))));
}

function letter(message) {
  if (!message) return make("section.panel", null, make("p.hint", null, "This message is no longer kept."));
  return make("section.panel", { "aria-label": "Message" },
    make("h2", null, `${channelName(message.channel)} to ${message.to}`),
    facts([
      ["Received", moment(message.receivedAt)],
      ["Segments", message.segments === null ? null : String(message.segments)],
      ["Attempt", message.attempt === null ? null : String(message.attempt)],
      ["Notification", message.notificationId && make("a.id", { href: `#/notifications/${message.notificationId}` }, message.notificationId)],
      ["Delivery", message.deliveryId && make("span.id", null, message.deliveryId)],
    ]),
    message.channel === "EMAIL" ? mail(message) : make("div.bubble", null, message.subject ? make("strong", null, message.subject) : null, message.text));
}

function mail(message) {
  const headers = Object.entries(message.headers).map(([name, value]) => `${name}: ${value}`).join("\n");
  return [
    make("h2", null, message.subject ?? "(no subject)"),
    message.html === null ? null : mailFrame(message.html),
    make("details", { open: true }, make("summary", null, "As text"), make("pre.letter-text", null, message.text)),
    make("details", null, make("summary", null, "Headers"), make("pre.letter-text", null, headers)),
  ];
}
