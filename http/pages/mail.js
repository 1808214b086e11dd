// The one place where text becomes HTML: a mail's, in a frame that may run no script and reach nothing.

// Browsers that know trusted types let only this policy make HTML (the page's Content-Security-Policy says so).
const policy = globalThis.trustedTypes?.createPolicy("mail", { createHTML: (html) => html }) ?? { createHTML: (html) => html };

/** A frame that shows `html` as a mail program would. */
export function mailFrame(html) {
  const frame = document.createElement("iframe");
  frame.title = "The mail as HTML";
  frame.setAttribute("sandbox", "");
  frame.referrerPolicy = "no-referrer";
  frame.srcdoc = policy.createHTML(html);
  return frame;
}
