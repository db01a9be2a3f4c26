// What is shown is described as plain values, and the page is changed only where it differs: so focus, selection and an
// open part stay, and a screen reader hears nothing twice. Text is always text: no string ever becomes markup.

const SVG = "http://www.w3.org/2000/svg";

export function el(tag, attributes, ...children) {
  const { key, ...rest } = attributes || {};
  return { tag, key, attributes: rest, children: children.flat(9).filter((child) => child !== null && child !== undefined && child !== false && child !== "") };
}

export function render(root, children) {
  const focused = root.contains(document.activeElement) ? document.activeElement : null;
  patchChildren(root, [children].flat(9).filter(Boolean), false);
  // A row that changed its place is put down anew, and loses the focus by that; what is gone leaves it to what holds all.
  if (focused && document.activeElement !== focused) (focused.isConnected ? focused : root).focus({ preventScroll: true });
}

function patchChildren(parent, wanted, inSvg) {
  const nodes = reused(parent, wanted);
  const kept = new Set(nodes);
  // What is no longer wanted goes first: so nothing that stays is moved past it.
  for (const node of [...parent.childNodes]) if (!kept.has(node)) node.remove();
  let place = parent.firstChild;
  wanted.forEach((want, index) => {
    const node = nodes[index] || make(want, inSvg);
    if (node === place) place = place.nextSibling;
    else parent.insertBefore(node, place);
    update(node, want, inSvg);
  });
}

// For each part the node that shows it already: by its key, or the next without a key that is of the same sort.
function reused(parent, wanted) {
  const keyed = new Map(), loose = [];
  for (const node of parent.childNodes) {
    if (node.promptmillKey === undefined) loose.push(node);
    else keyed.set(node.promptmillKey, node);
  }
  return wanted.map((want) => {
    if (want.key !== undefined) {
      const node = keyed.get(want.key);
      keyed.delete(want.key);
      return node && fits(node, want) ? node : null;
    }
    const at = loose.findIndex((node) => fits(node, want));
    return at < 0 ? null : loose.splice(0, at + 1)[at];
  });
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
