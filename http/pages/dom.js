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

/** Puts `children` in the place of what `container` holds; the focus stays on the element with the same data-key. */
export function fill(container, ...children) {
  const key = container.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  container.replaceChildren(...children.flat().filter(Boolean));
  if (key) container.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}

/** A table with a caption for those who hear it. `rows` are lists of cells, each a text, an element, or {class, text}. */
export function table(caption, columns, rows) {
  return make("div.scroll", { tabindex: "0", role: "region", "aria-label": caption },
    make("table", null,
      make("caption.visually-hidden", null, caption),
      make("thead", null, make("tr", null, columns.map((name) => make("th", { scope: "col" }, name)))),
      make("tbody", null, rows.map((cells) => make("tr", null, cells.map((cell) => make("td", null, cell ?? nothing())))))));
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

/** A status as a mark: its colour says again what its word says. */
export function statusMark(status) {
  return make(`span.mark.${String(status).toLowerCase().replace(/[^a-z_]/g, "")}`, null, words(status));
}

/** A channel's name. */
export function channelName(channel) {
  return { IN_APP: "In-app", PUSH: "Push", SMS: "SMS", EMAIL: "Email" }[channel] ?? String(channel);
}

/** "NOT_CONFIGURED" and "not_configured" as words. */
export function words(name) {
  const text = String(name).toLowerCase().replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });

/** A time of the API as this reader's own, with the exact one to hover over. */
export function moment(iso, { always_day = false } = {}) {
  if (!iso) return nothing();
  const at = new Date(iso);
  const today = at.toDateString() === new Date().toDateString();
  const text = today && !always_day ? clock.format(at) : `${day.format(at)}, ${clock.format(at)}`;
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
