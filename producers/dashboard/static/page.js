// The start: which page this is, who sits before it, and what arrives.

import { batchPage } from "./batch.js";
import { el, render } from "./dom.js";
import { Live } from "./live.js";
import { overview } from "./overview.js";
import { ask, person, say, signIn, signOut, whenSignedOut, whoIsIt } from "./person.js";
import { duration, moment } from "./words.js";

const place = location.pathname.match(/^\/batch\/(.+)$/);
const batch = place ? named(place[1]) : null;
const seen = { overview: null, history: null, batch: null };
let live = null;

function named(path) {
  try {
    return decodeURIComponent(path);
  } catch {
    return path; // no name that was ever written so: the server says that there is no such batch
  }
}

function show() {
  const page = batch === null ? overview : batchPage;
  render(document.getElementById("main"), page(seen));
  const silence = seen.overview && seen.overview.silence;
  render(document.getElementById("notices"), silence ? [el("p", { class: "notice", role: "alert" }, `${silence}. What you see is from ${moment(seen.overview.at) || "before"}.`)] : []);
  document.title = seen.batch && seen.batch.name ? `${seen.batch.name} · Promptmill` : "Promptmill";
}

const LINES = { live: "live", asking: "every few seconds", old: "the figures are late", silent: "no word from the server", closed: "signed out" };
let line = "";
function tellLine(how, seconds) {
  const said = LINES[how];
  const text = how === "old" ? `what you see is ${duration(seconds)} old` : how === "silent" ? `${said} for ${duration(seconds)}` : said;
  if (how === "closed" && line !== text) begin();
  line = text;
  const where = document.getElementById("line");
  where.className = how;
  where.title = text;
  render(where, [said]);
}

function showPerson() {
  const out = async () => {
    await signOut();
    await begin();
    say("You are signed out.");
  };
  const button = person.signed_in
    ? el("button", { onclick: out }, "Sign out")
    : person.can_act ? el("button", { onclick: () => ask("Sign in", { does: "Sign in", fields: [{ name: "token", label: "Token", type: "password", autocomplete: "current-password" }], onDo: enter }) }, "Sign in") : null;
  render(document.getElementById("person"), button ? [button] : []);
}

async function enter({ token }) {
  await signIn(token.trim());
  await begin();
  say("You are signed in.");
}

function showDoor() {
  Object.assign(seen, { overview: null, history: null, batch: null });
  render(document.getElementById("notices"), []);
  render(document.getElementById("main"), [el("p", { key: "door" }, "The figures are for those who have the token of this page: sign in to see them. The token is what PROMPTMILL_DASHBOARD_TOKEN says, or the file that PROMPTMILL_DASHBOARD_TOKEN_FILE names, where the page runs.")]);
}

async function begin() {
  if (live) live.end();
  live = null;
  try {
    await whoIsIt();
  } catch {
    tellLine("silent", 0);
    setTimeout(begin, 5000);
    return;
  }
  showPerson();
  if (!person.may_read) return showDoor();
  show();
  live = new Live(batch, { onLine: tellLine, onDocument: (name, document) => {
    // While the database is away what was seen last stays; a notice says so.
    if (!(document.away && seen[name])) seen[name] = document;
    show();
  } });
}

whenSignedOut(begin);
begin();
