// Who sits before the page: signing in and out, and what a person who has signed in may do.

import { el, render } from "./dom.js";

export const person = { can_act: false, may_read: true, signed_in: false, guard: null };

export async function whoIsIt() {
  Object.assign(person, await (await fetch("/api/session")).json());
}

async function tell(method, path, document) {
  const headers = { "Content-Type": "application/json" };
  if (person.guard) headers["X-Promptmill-Guard"] = person.guard;
  const answer = await fetch(path, { method, headers, body: JSON.stringify(document) });
  const told = await answer.json().catch(() => ({ error: `the server answered ${answer.status}` }));
  if (!answer.ok) throw new Error(told.error);
  return told;
}

export const signIn = (token) => tell("POST", "/api/session", { token });
export const signOut = () => tell("DELETE", "/api/session", {});

export async function act(path, document = {}) {
  try {
    say((await tell("POST", path, document)).said);
  } catch (error) {
    say(`That did not work: ${error.message}`);
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
  const form = (error) => el("form", { method: "dialog", onsubmit: async (event) => {
    event.preventDefault();
    const values = Object.fromEntries(new FormData(event.target));
    try {
      await onDo(values);
      dialog.close();
    } catch (problem) {
      complain(problem.message);
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
