// Who sits before the page: signing in and out, and what a person who has signed in may do.

import { el, render } from "./dom.js";

export const person = { can_act: false, may_read: true, signed_in: false };

// The word that actions bring along. It is told once, at the sign-in, and kept where only pages of this very server read
// it: a cookie goes to every port of a host, this goes nowhere.
const NAME = "promptmill-guard";
const guard = {
  get: () => { try { return localStorage.getItem(NAME); } catch { return null; } }, // a browser that keeps nothing shows all the same
  keep: (word) => localStorage.setItem(NAME, word),
  forget: () => localStorage.removeItem(NAME),
};

export async function whoIsIt() {
  Object.assign(person, await (await fetch("/api/session")).json());
  person.signed_in = person.signed_in && Boolean(guard.get());
}

let startAnew = () => {};
export const whenSignedOut = (begin) => (startAnew = begin);

async function tell(method, path, document) {
  const headers = { "Content-Type": "application/json" };
  const word = guard.get();
  if (word) headers["X-Promptmill-Guard"] = word;
  const answer = await fetch(path, { method, headers, body: JSON.stringify(document) });
  const told = await answer.json().catch(() => ({ error: `the server answered ${answer.status}` }));
  if (answer.status === 401) startAnew();
  if (!answer.ok) throw new Error(told.error);
  return told;
}

export async function signIn(token) {
  guard.keep((await tell("POST", "/api/session", { token })).guard);
}

export async function signOut() {
  await tell("DELETE", "/api/session", {});
  guard.forget();
}

// Does what a dialog has asked for, which shows what was wrong.
export async function change(path, document = {}) {
  say((await tell("POST", path, document)).said);
}

const going = new Set();
// Does what a button says. While it does, the same button does nothing: a double click is one.
export async function act(path) {
  if (going.has(path)) return;
  going.add(path);
  try {
    await change(path);
  } catch (error) {
    say(`That did not work: ${error.message}`);
  } finally {
    going.delete(path);
  }
}

let quiet;
export function say(text) {
  const place = document.getElementById("said");
  render(place, [text]);
  clearTimeout(quiet);
  quiet = setTimeout(() => render(place, []), 8000);
}

// The browser's own dialog: it keeps the focus inside, Escape leaves it, and the focus goes back afterwards.
export function ask(title, { fields = [], does, text = "", danger = false, onDo }) {
  const dialog = document.getElementById("ask");
  const complain = (error) => render(dialog, form(error));
  let isDoing = false;
  const form = (error) => el("form", { method: "dialog", onsubmit: async (event) => {
    event.preventDefault();
    if (isDoing) return;
    isDoing = true;
    try {
      await onDo(Object.fromEntries(new FormData(event.target)));
      dialog.close();
    } catch (problem) {
      complain(problem.message);
    } finally {
      isDoing = false;
    }
  } },
  el("h2", { id: "ask-title" }, title),
  text ? el("p", {}, text) : null,
  // Who keeps the token in a password manager needs a name to keep it under.
  fields.some((field) => field.type === "password") ? el("input", { type: "text", name: "username", value: "promptmill", autocomplete: "username", hidden: true }) : null,
  fields.map((field) => el("label", {}, field.label, " ", el("input", { name: field.name, type: field.type || "text", autocomplete: field.autocomplete || "off", required: true, value: field.value, inputmode: field.inputmode }))),
  el("p", { role: "alert", class: "wrong" }, error || ""),
  el("div", { class: "buttons" },
    el("button", { type: "submit", class: danger ? "danger" : "main" }, does),
    el("button", { type: "button", onclick: () => dialog.close() }, "Leave it")));
  render(dialog, []);
  complain("");
  dialog.showModal();
}
