// What is shown is described as plain values, and the page is changed only where it differs: so focus, selection and an
// open part stay, and a screen reader hears nothing twice. Text is always text: no string ever becomes markup.

const SVG = "http://www.w3.org/2000/svg";

export function el(tag, attributes, ...children) {
  const { key, ...rest } = attributes || {};
  return { tag, key, attributes: rest, children: children.flat(9).filter((child) => child !== null && child !== undefined && child !== false && child !== "") };
}

export function render(root, children) {
  patchChildren(root, [children].flat(9).filter(Boolean), false);
}

function patchChildren(parent, wanted, inSvg) {
  const keyed = new Map();
  for (const node of parent.childNodes) if (node.promptmillKey !== undefined) keyed.set(node.promptmillKey, node);
  let place = parent.firstChild;
  for (const want of wanted) {
    const found = want.key === undefined ? (place && place.promptmillKey === undefined && fits(place, want) ? place : null) : keyed.get(want.key);
    const node = found && fits(found, want) ? found : make(want, inSvg);
    if (node !== place) parent.insertBefore(node, place);
    else place = place.nextSibling;
    update(node, want, inSvg);
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

function fits(node, want) {
  return typeof want !== "object" ? node.nodeType === Node.TEXT_NODE : node.nodeType === Node.ELEMENT_NODE && node.localName === want.tag;
}

function make(want, inSvg) {
  if (typeof want !== "object") return document.createTextNode("");
  const node = inSvg || want.tag === "svg" ? document.createElementNS(SVG, want.tag) : document.createElement(want.tag);
  if (want.key !== undefined) node.promptmillKey = want.key;
  return node;
}

function update(node, want, inSvg) {
  if (typeof want !== "object") {
    const text = String(want);
    if (node.data !== text) node.data = text;
    return;
  }
  const attributes = want.attributes;
  for (const name of node.getAttributeNames()) {
    // Whether a part is open is the reader's affair.
    if (!(name in attributes) && !(name === "open" && node.localName === "details")) node.removeAttribute(name);
  }
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node[name] = value;
    else if (value === false || value === null || value === undefined) node.removeAttribute(name);
    else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value === true ? "" : value);
  }
  patchChildren(node, want.children, inSvg || want.tag === "svg");
}

// A table that stays one for screen readers where the style lays its rows out as cards.
export function table(caption, heads, rows) {
  return el("table", { role: "table" },
    el("caption", {}, caption),
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, heads.map((head) => el("th", { role: "columnheader", scope: "col" }, head)))),
    el("tbody", { role: "rowgroup" }, rows.map(({ key, cells }) =>
      el("tr", { role: "row", key }, cells.map((cell, place) =>
        el(place ? "td" : "th", { role: place ? "cell" : "rowheader", scope: place ? null : "row", "data-head": heads[place] }, cell))))));
}

export function link(path, text) {
  return el("a", { href: path }, text);
}
