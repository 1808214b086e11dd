// Changing what is shown into what should be shown, touching only what differs: the focus, the place one has scrolled to,
// what is folded open and a mail in its frame stay as they are.

/** Makes the children of `container` equal to `children`. Those with the same data-key are the same thing. */
export function show(container, ...children) {
  const wanted = document.createElement("div");
  wanted.append(...children.flat().filter(Boolean));
  patchChildren(container, wanted);
}

function patchChildren(old, wanted) {
  const keyed = new Map([...old.children].filter((child) => child.dataset.key).map((child) => [child.dataset.key, child]));
  let place = old.firstChild;
  for (const child of [...wanted.childNodes]) {
    const key = child.dataset?.key;
    const known = key ? keyed.get(key) : place;
    if (known && isSameThing(known, child)) {
      if (known === place) place = place.nextSibling;
      else old.insertBefore(known, place);
      patch(known, child);
    } else {
      old.insertBefore(child, place);
    }
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

function isSameThing(known, wanted) {
  if (known.nodeName !== wanted.nodeName || known.dataset?.key !== wanted.dataset?.key) return false;
  // A frame whose mail differs is another frame.
  return known.nodeName !== "IFRAME" || known.isEqualNode(wanted);
}

function patch(known, wanted) {
  if (known.isEqualNode(wanted)) return;
  if (known.nodeType !== Node.ELEMENT_NODE) {
    known.nodeValue = wanted.nodeValue;
    return;
  }
  for (const { name } of [...known.attributes]) {
    if (name !== "open" && !wanted.hasAttribute(name)) known.removeAttribute(name);
  }
  for (const { name, value } of wanted.attributes) {
    if (known.getAttribute(name) !== value) known.setAttribute(name, value);
  }
  patchChildren(known, wanted);
}
