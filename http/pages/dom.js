// Making elements. What callers wrote becomes text, never HTML.

/** An element: `make("a.name", {href}, "text", other)`. Null and false among the children are left out. */
export function make(selector, attributes, ...children) {
  const [tag, ...classes] = selector.split(".");
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(" ");
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A table with a caption for those who hear it. `rows` are pairs: what the row is about, and its cells, each a text or
 *  an element. */
export function table(caption, columns, rows) {
  return make("div.scroll", { tabindex: "0", role: "region", "aria-label": caption },
    make("table", null,
      make("caption.visually-hidden", null, caption),
      make("thead", null, make("tr", null, columns.map((name) => make("th", { scope: "col" }, name)))),
      make("tbody", null, rows.map(([key, cells]) => make("tr", { "data-key": key }, cells.map((cell, place) => make("td", { "data-label": columns[place] }, cell ?? nothing())))))));
}

/** What stands where there is nothing. */
export function nothing() {
  return make("span.nothing", { "aria-label": "none" }, "–");
}

/** Names and values; pairs whose value is null are left out. */
export function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return make("dl.facts", null, shown.map(([name, value]) => make("div", null, make("dt", null, name), make("dd", null, value))));
}

const TONES = {
  good: ["SENT", "DELIVERED", "COMPLETED", "READ", "LISTED"],
  wait: ["SCHEDULED", "QUEUED", "SENDING", "PENDING", "PROCESSING", "ACCEPTED"],
  care: ["RETRYING", "UNCERTAIN", "HIGH"],
  bad: ["FAILED", "DEAD", "BOUNCED", "CRITICAL"],
};
const STANDINGS = [
  "DELIVERED", "SENT", "SENDING", "QUEUED", "SCHEDULED", "RETRYING", "UNCERTAIN",
  "FAILED", "DEAD", "BOUNCED", "CANCELLED", "SUPPRESSED",
];
export const TONE_NAMES = ["good", "wait", "care", "bad", "off"];

/** Which colour a status has: good, wait, care, bad, or off. */
export function tone(status) {
  return Object.keys(TONES).find((name) => TONES[name].includes(status)) ?? "off";
}

/** Pairs of a status and its count, the best first. */
export function standings(counts) {
  return Object.entries(counts).toSorted(([one], [other]) => STANDINGS.indexOf(one) - STANDINGS.indexOf(other));
}

/** A status as a mark: its colour says again what its word says. */
export function statusMark(status) {
  return make(`span.mark.${tone(status)}`, null, words(status));
}

/** A channel's name. */
export function channelName(channel) {
  return { IN_APP: "In-app", PUSH: "Push", SMS: "SMS", EMAIL: "Email" }[channel] ?? String(channel);
}

/** "NOT_CONFIGURED" and "not_configured" as words. */
export function words(name) {
  const text = String(name).toLowerCase().replaceAll("_", " ").replace(/\bapi\b/, "API");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });

/** A time of the API as this reader's own, with the exact one to hover over. */
export function moment(iso) {
  if (!iso) return nothing();
  const at = new Date(iso);
  const isToday = at.toDateString() === new Date().toDateString();
  const text = isToday ? clock.format(at) : `${day.format(at)}, ${clock.format(at)}`;
  return make("time", { datetime: iso, title: iso }, text);
}

/** How long after `start` something was or will be: "+3.2 s", "+10 min". */
export function offset(iso, start) {
  const seconds = (new Date(iso) - new Date(start)) / 1000;
  const sign = seconds < 0 ? "−" : "+";
  const size = Math.abs(seconds);
  if (size < 1) return `${sign}${Math.round(size * 1000)} ms`;
  if (size < 120) return `${sign}${size.toFixed(size < 10 ? 1 : 0)} s`;
  if (size < 7200) return `${sign}${Math.round(size / 60)} min`;
  return size < 172800 ? `${sign}${Math.round(size / 3600)} h` : `${sign}${Math.round(size / 86400)} d`;
}
