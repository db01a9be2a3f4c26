// The line to the server: a stream of events, and plain questions every five seconds where there is none.
//
// A browser opens six lines to a server, over all its tabs. So three tabs hold a stream, the others ask, and one that
// nobody sees is silent: buttons and new tabs always find a line that is free.

const STREAMS = 3, ASK_MS = 5000, QUIET_MS = 8000, SILENCE_MS = 15000;
// A stream says something every two seconds. One that says nothing at first may never get through; it is tried again later.
const TRIAL_MS = 4000, AGAIN_MS = 15000;

export class Live {
  constructor(batch, { onDocument, onLine }) {
    this.batch = batch;
    this.onDocument = onDocument;
    this.onLine = onLine;
    this.turn = 0;
    this.streamFrom = 0;
    this.onSight = () => {
      this.heardAt = Date.now();
      if (document.hidden) this.rest();
      else this.open();
    };
    document.addEventListener("visibilitychange", this.onSight);
    this.watch = setInterval(() => this.look(), 1000);
    this.onSight();
  }

  // Streams, if a place is free; else asks. Whatever was begun before is over.
  async open() {
    this.rest();
    const turn = this.turn;
    const leave = Date.now() < this.streamFrom ? null : await takePlace();
    if (!leave) return turn === this.turn && this.ask();
    if (turn !== this.turn) return leave();
    this.leave = leave;
    this.openedAt = Date.now();
    const query = this.batch === null ? "" : `?batch=${encodeURIComponent(this.batch)}`;
    const stream = (this.stream = new EventSource(`/api/live${query}`));
    for (const name of ["overview", "history", "batch"]) {
      stream.addEventListener(name, (event) => this.onDocument(name, JSON.parse(event.data)));
    }
    stream.addEventListener("tick", (event) => {
      this.openedAt = null;
      this.hear("live", JSON.parse(event.data));
    });
    stream.onerror = () => stream.readyState === EventSource.CLOSED && this.giveUp();
  }

  // How old the figures are is another matter than whether the server is there: a look may take long.
  hear(how, { age_s: age, every_s: every }) {
    this.heardAt = Date.now();
    if (age !== null && age > Math.max(4, 3 * every)) this.onLine("old", age);
    else this.onLine(how);
  }

  look() {
    if (document.hidden) return;
    const silent = Date.now() - this.heardAt;
    if (silent > QUIET_MS) this.onLine("silent", silent / 1000);
    const isMute = this.stream && (this.openedAt ? Date.now() - this.openedAt > TRIAL_MS : silent > SILENCE_MS);
    if (isMute) this.giveUp();
  }

  giveUp() {
    this.streamFrom = Date.now() + AGAIN_MS;
    this.ask();
  }

  async ask() {
    this.rest();
    const turn = this.turn;
    try {
      for (const name of this.batch === null ? ["overview", "history"] : ["batch", "overview"]) {
        const answer = await fetch(`/api/${name === "batch" ? `batches/${encodeURIComponent(this.batch)}` : name}`);
        if (turn !== this.turn) return;
        if (answer.status === 401) return this.end(), this.onLine("closed");
        if (!answer.ok && answer.status !== 404 && !(name === "batch" && answer.status === 503)) throw new Error(answer.status);
        this.onDocument(name, await answer.json());
        this.hear("asking", { age_s: Number(answer.headers.get("Age")), every_s: ASK_MS / 1000 });
      }
    } catch {
      if (turn === this.turn) this.onLine("silent", (Date.now() - this.heardAt) / 1000);
    }
    if (turn === this.turn) this.again = setTimeout(() => this.open(), ASK_MS);
  }

  rest() {
    this.turn += 1;
    clearTimeout(this.again);
    if (this.stream) this.stream.close();
    if (this.leave) this.leave();
    this.stream = this.leave = null;
  }

  end() {
    this.rest();
    clearInterval(this.watch);
    document.removeEventListener("visibilitychange", this.onSight);
  }
}

// One of the places to stream from, as what gives it back; null where all are taken. Browsers have locks where a page came
// by TLS or from this machine; elsewhere every tab that is seen streams.
async function takePlace() {
  if (!navigator.locks) return () => {};
  for (let number = 0; number < STREAMS; number += 1) {
    const leave = await new Promise((resolve) => {
      navigator.locks.request(`promptmill-stream-${number}`, { ifAvailable: true }, (lock) => {
        if (!lock) return resolve(null);
        return new Promise((free) => resolve(free));
      }).catch(() => resolve(null));
    });
    if (leave) return leave;
  }
  return null;
}
