// Dead letters: what will not be tried again by itself, by cause.

import { get } from "./api.js";
import { channelName, make, moment, statusMark, table, words } from "./dom.js";

const SHOWN = 50;

/** The view of dead letters. */
export function lettersView() {
  return {
    title: "Dead letters",
    load: async (signal) => ({
      causes: await get("/api/dead-letters/causes", {}, { signal }),
      letters: await get("/api/dead-letters", { limit: SHOWN }, { signal }),
    }),
    draw: ({ causes, letters }) => [
      make("h1", null, "Dead letters"),
      make("p", null, `${causes.total} will not be tried again by themselves, ${causes.discarded} are put aside; ${causes.held} have an outcome that nobody knows.`),
      causes.data.length ? byCause(causes.data) : null,
      letters.data.length ? listing(letters.data) : make("section.notice", null, make("p", null, "Nothing was given up.")),
      make("p.hint", null, "Try again or put aside: ", make("code", null, "tocsin dead-letters retry"), ", ",
        make("code", null, "tocsin dead-letters discard"), ", or ", make("a", { href: "/docs#retry_dead_letters" }, "the API"), "."),
    ],
  };
}

function byCause(causes) {
  const columns = ["Count", "Put aside", "Channel", "Provider", "Status", "Why", "Said last", "First", "Last"];
  return table("Causes, the most frequent first", columns, causes.map((cause) => [keyOf(cause), [
    String(cause.count),
    String(cause.discarded),
    cause.channel ? channelName(cause.channel) : words(cause.kind),
    cause.provider,
    statusMark(cause.status),
    why(cause.reason, cause.errorCode),
    cause.sample,
    moment(cause.firstAt),
    moment(cause.lastAt),
  ]]));
}

function listing(letters) {
  const columns = ["Failed", "What", "To", "Status", "Why", "Said last"];
  return table("Dead letters, those of the newest events first", columns, letters.map((letter) => [letter.id, [
    moment(letter.failedAt),
    make("a", { href: letter.notificationId ? `#/notifications/${letter.notificationId}` : `#/events/${letter.eventId}` },
      `${letter.type ?? "Delivery"} · ${letter.channel ? channelName(letter.channel) : words(letter.kind)}`),
    letter.recipientId,
    statusMark(letter.status),
    why(letter.reason, letter.errorCode),
    letter.error,
  ]]));
}

function why(reason, code) {
  return [reason ? words(reason) : null, code].filter(Boolean).join(", ") || null;
}

function keyOf(cause) {
  return [cause.kind, cause.channel, cause.provider, cause.status, cause.reason, cause.errorCode].join("|");
}
