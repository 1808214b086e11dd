// Dead letters: what will not be tried again by itself, by cause.

import { get, Problem } from "./api.js";
import { channelName, make, moment, statusMark, table, words } from "./dom.js";

const SHOWN = 50;

/** The view of dead letters. */
export function lettersView() {
  return {
    title: "Dead letters",
    load: async (signal) => ({
      causes: await get("/api/dead-letters/causes", {}, { signal }),
      letters: await get("/api/dead-letters", { limit: SHOWN }, { signal }),
      run: await lastRun(signal),
    }),
    draw: ({ causes, letters, run }) => [
      make("h1", null, "Dead letters"),
      make("p", null, `Given up: ${causes.total}. Put aside: ${causes.discarded}. With an outcome that nobody knows: ${causes.held}.`),
      run ? verdict(run) : null,
      ...(causes.data.length ? [make("h2", null, "By cause"), byCause(causes.data)] : []),
      ...(letters.data.length ? [make("h2", null, "One by one"), listing(letters.data)]
        : [make("section.notice", null, make("p", null, "Nothing was given up."))]),
      make("p.hint", null, "Try again or put aside: ", make("code", null, "tocsin dead-letters retry"), ", ",
        make("code", null, "tocsin dead-letters discard"), ", or ", make("a", { href: "/docs#retry_dead_letters" }, "the API"), "."),
    ],
  };
}

/** The last run of reconciliation; null for who may not see it, or where there was none. */
async function lastRun(signal) {
  try {
    return (await get("/api/reconciliation/runs", { limit: 1 }, { signal })).data[0] ?? null;
  } catch (error) {
    if (error instanceof Problem && error.status === 403) return null;
    throw error;
  }
}

function verdict(run) {
  const mended = Object.values(run.checks).reduce((sum, check) => sum + check.repaired, 0);
  const found = run.inSync
    ? `in sync, with ${run.ledger} deliveries open.`
    : `${run.difference} differences between Postgres and Redis, ${mended} mended.`;
  return make("p.reconciled", null, "Last reconciled ", moment(run.startedAt), ": ", found);
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
