// The line to the server: a stream of events, and plain questions every five seconds where streams do not get through.

const ASK_MS = 5000, SILENCE_MS = 15000;

export class Live {
  constructor(batch, { onDocument, onLine }) {
    this.batch = batch;
    this.onDocument = onDocument;
    this.onLine = onLine;
    this.heardAt = Date.now();
    this.open();
    this.watch = setInterval(() => this.look(), 1000);
  }

  open() {
    const query = this.batch === null ? "" : `?batch=${encodeURIComponent(this.batch)}`;
    this.stream = new EventSource(`/api/live${query}`);
    for (const name of ["overview", "history", "batch"]) {
      this.stream.addEventListener(name, (event) => this.onDocument(name, JSON.parse(event.data)));
    }
    this.stream.addEventListener("tick", () => this.hear("live"));
    this.stream.onerror = () => {
      if (this.stream.readyState === EventSource.CLOSED) this.ask();
    };
  }

  hear(how) {
    this.heardAt = Date.now();
    this.onLine(how);
  }

  look() {
    const silent = Date.now() - this.heardAt;
    if (silent > 4000) this.onLine("silent", silent / 1000);
    if (silent > SILENCE_MS && !this.asking) this.ask();
  }

  async ask() {
    if (this.asking) return;
    this.asking = true;
    this.stream.close();
    try {
      const names = this.batch === null ? ["overview", "history"] : ["batch", "overview"];
      for (const name of names) {
        const path = name === "batch" ? `batches/${encodeURIComponent(this.batch)}` : name;
        const answer = await fetch(`/api/${path}`);
        if (answer.status === 401) return this.end(), this.onLine("closed");
        if (!answer.ok && answer.status !== 404 && !(name === "batch" && answer.status === 503)) throw new Error(answer.status);
        this.onDocument(name, await answer.json());
      }
      this.hear("asking");
    } catch {
      this.onLine("silent", (Date.now() - this.heardAt) / 1000);
    }
    this.again = setTimeout(() => {
      this.asking = false;
      this.open();
      // A stream that opens says so within a second or two; one that does not is closed and asked for anew.
      this.again = setTimeout(() => Date.now() - this.heardAt > 4000 && this.ask(), ASK_MS);
    }, ASK_MS);
  }

  end() {
    this.stream.close();
    clearInterval(this.watch);
    clearTimeout(this.again);
  }
}
