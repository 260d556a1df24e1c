/**
 * A client of Tertulia's live sessions: an ES module, no dependencies, no build.
 *
 *     import { connect } from "./tertulia.js";
 *     const live = connect("/ws", { onAnswer: (answer) => show(answer.text) });
 *     live.say("What is a tertulia?");
 *
 * When the connection is lost it comes back by itself and takes up where it was: as `onEvent` sees
 * it, nothing is lost and nothing comes twice. For browsers, and for Node with its `WebSocket`.
 *
 * @typedef {"connecting" | "open" | "waiting" | "closed"} State
 * "waiting" is the time between a lost connection and the next attempt; "closed" is for good.
 *
 * @typedef {{type: string, id?: string|null, seq?: number|null, [field: string]: any}} LiveEvent
 *
 * @typedef {import("./answers.js").Answer} Answer
 *
 * @typedef {object} Options
 * @property {string} [token] who this is; goes with the first frame, never into the address
 * @property {string} [sessionId] the session to come back to
 * @property {number} [after] the highest seq that was seen of it; 0 asks for all of it
 * @property {object} [variables] initial variables of a new session
 * @property {boolean} [join] whether `system.user.joined` opens a new session (default true)
 * @property {(event: LiveEvent) => void} [onEvent] every event, once, in order
 * @property {(answer: Answer) => void} [onAnswer] an answer, whenever it has changed
 * @property {(state: State, detail: {code?: number, reason?: string, retryIn?: number}) => void}
 *   [onState] `retryIn` is in milliseconds
 * @property {Storage} [storage] e.g. sessionStorage: the session then survives a reload
 * @property {string} [storageKey] default "tertulia"
 * @property {typeof globalThis.WebSocket} [WebSocket] the class to use
 */

import { Answers } from "./answers.js";

const FINAL = new Set([1000, 4400, 4401, 4403, 4409]); // for good: ended, refused, taken over
const KEPT = new Set(["agent.transcript.update", "system.user.dtmf"]); // sent until acknowledged
const REQUEST = "system.llm.request"; // sent until its answer has ended
const MAX_FRAME = 256 * 1024; // bytes
const MAX_UNSENT = 256; // events that wait for a connection
const MAX_ASKED = 3; // times that one request is sent
const MAX_UNREAD = 4096; // events that wait for an iterator
const MAX_KNOWN = 1024; // ids and places that are remembered to see repetitions
const READY_WITHIN = 15_000; // ms
const QUIET = 500; // ms without a frame, after which what was missed has come
const FIRST_RETRY = 300; // ms
const LAST_RETRY = 15_000;

/**
 * Open a live session, or come back to one.
 * @param {string | URL} url of the WebSocket; may be relative to the page, and http(s)
 * @param {Options} [options]
 * @returns {Live}
 */
export function connect(url, options = {}) {
  return new Live(url, options);
}

/** One live session, over as many connections as it takes. */
export class Live {
  /** @type {State} */ state = "connecting";
  /** @type {string|null} */ sessionId = null;
  /** The highest seq that was seen. */ after = 0;

  #options;
  #url;
  #key;
  #socket = null;
  #attempts = 0;
  #timer = null; // to the next attempt, or of the patience with this one
  #quiet = null;
  #floor = 0; // what this connection was asked to start after
  #catching = false; // what was missed is still coming
  #joining = false;
  #names = false; // the server says which request an answer is for
  #seen = new Recent();
  #sent = new Recent();
  #outgoing = []; // what waits, and what may have to go again: see send()
  #answers = new Answers();
  #listeners = new Map();
  #readers = new Set();

  constructor(url, options) {
    const place = new URL(url, globalThis.location?.href);
    place.protocol = place.protocol.replace(/^http/, "ws");
    this.#url = place.href;
    this.#options = options;
    this.#key = options.storageKey ?? "tertulia";
    const stored = JSON.parse(options.storage?.getItem(this.#key) ?? "{}");
    this.sessionId = options.sessionId ?? stored.sessionId ?? null;
    this.after = options.after ?? stored.after ?? 0;
    globalThis.addEventListener?.("online", this.#online);
    globalThis.addEventListener?.("offline", this.#offline);
    this.#open();
  }

  /** Say a text, and ask for an answer. Returns the user's event, and the id of the `request`. */
  say(text) {
    const said = this.send({ type: "agent.transcript.update", role: "user", content: text });
    return { ...said, request: this.send({ type: REQUEST }).id };
  }

  /** Stop the answer that is being given; `heard` is what was heard of it, if that is known. */
  interrupt(heard = null) {
    return this.send({ type: "system.control.interrupt", heard });
  }

  /**
   * Send an event, now or once there is a connection. `kept` says of a type of your own that it
   * goes into the log: it is then sent again until the server has it. Returns the event with its
   * id. Throws where it is too large, where too many wait, and after the end.
   */
  send(event, { kept = KEPT.has(event.type) } = {}) {
    if (this.state === "closed") throw new Error("the session is closed; connect() again");
    const whole = { id: newId(), timestamp: new Date().toISOString(), ...event };
    if (new TextEncoder().encode(JSON.stringify(whole)).length > MAX_FRAME) {
      throw new RangeError(`an event has at most ${MAX_FRAME} bytes`);
    }
    if (this.#outgoing.filter((entry) => !entry.sent).length >= MAX_UNSENT) {
      throw new RangeError(`${MAX_UNSENT} events wait for a connection already`);
    }
    this.#sent.add(whole.id);
    const asks = event.type === REQUEST; // `answer` is the id of what it got
    const state = { again: kept || asks, sent: false, times: 0, answer: null };
    this.#outgoing.push({ event: whole, asks, ...state });
    this.#flush();
    return whole;
  }

  /** End the session for good. */
  close() {
    this.#leave(1000);
    if (this.state !== "closed") this.#end({ code: 1000, reason: "closed here" });
  }

  /**
   * Call a function for events of a type, of a family ("agent.*") or of all ("*").
   * Returns what takes it off again.
   */
  on(type, listener) {
    const listeners = this.#listeners.get(type) ?? new Set();
    this.#listeners.set(type, listeners.add(listener));
    return () => listeners.delete(listener);
  }

  /** The events from now on, until the session is closed; throws where they are read too slowly. */
  async *[Symbol.asyncIterator]() {
    const reader = { waiting: [], wake: () => {} };
    this.#readers.add(reader);
    try {
      while (true) {
        while (reader.waiting.length > 0) {
          if (reader.waiting.length > MAX_UNREAD) throw new Error("the reader is too slow");
          yield reader.waiting.shift();
        }
        if (this.state === "closed") return;
        await new Promise((resolve) => (reader.wake = resolve));
      }
    } finally {
      this.#readers.delete(reader);
    }
  }

  // -- one connection

  #open = () => {
    this.#become("connecting");
    const WebSocket = this.#options.WebSocket ?? globalThis.WebSocket;
    const socket = new WebSocket(this.#url);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => socket.send(JSON.stringify(this.#init()));
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = ({ code, reason }) => this.#lost({ code, reason });
    socket.onerror = () => {}; // onclose follows, and says more
    this.#socket = socket;
    this.#wait(READY_WITHIN, () => this.#again("no agent.ready in time"));
  };

  #init() {
    this.#floor = this.after;
    this.#seen.clear();
    const { variables = {}, token = null } = this.#options;
    return {
      type: "system.init",
      id: newId(),
      session_context: { initial_variables: variables, conversation_type: "chat" },
      session_id: this.sessionId,
      after: this.sessionId === null ? null : this.after,
      token,
    };
  }

  /** Let go of the socket: what it still says is not heard. */
  #leave(code) {
    const socket = this.#socket;
    this.#socket = null;
    clearTimeout(this.#timer);
    clearTimeout(this.#quiet);
    if (socket !== null) socket.onopen = socket.onmessage = socket.onclose = null;
    socket?.close(code);
  }

  #again(reason) {
    this.#leave(4000);
    this.#lost({ code: 1006, reason });
  }

  #lost({ code, reason }) {
    this.#leave(1000);
    if (FINAL.has(code)) return this.#end({ code, reason });
    const most = Math.min(LAST_RETRY, FIRST_RETRY * 2 ** this.#attempts++);
    const retryIn = Math.round(most * (0.5 + Math.random() / 2)); // so that not all come at once
    this.#wait(retryIn, this.#open);
    this.#become("waiting", { code, reason, retryIn });
  }

  #end(detail) {
    globalThis.removeEventListener?.("online", this.#online);
    globalThis.removeEventListener?.("offline", this.#offline);
    if (detail.code === 1000) this.#options.storage?.removeItem(this.#key);
    this.#become("closed", detail);
    for (const reader of this.#readers) reader.wake();
  }

  #online = () => this.state === "waiting" && this.#open();
  #offline = () => this.#socket !== null && this.#again("the network is gone");

  #wait(time, then) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(then, time);
  }

  #become(state, detail = {}) {
    if (state === this.state) return;
    this.state = state;
    call(this.#options.onState, state, detail);
  }

  // -- what comes

  #receive(data) {
    const text = typeof data === "string" ? data : new TextDecoder().decode(data);
    const event = JSON.parse(text);
    if (event.type === "agent.ready") return this.#ready(event);
    if (!this.#isNew(event)) return;
    if (event.id != null && this.#sent.has(event.id)) this.#acknowledge(event.id);
    else if (event.type.startsWith("agent.llm.response.")) this.#answer(event);
    else this.#deliver(event);
    if (event.seq != null) this.#save();
    if (this.#catching) this.#catchUp(event.seq != null);
  }

  #ready(event) {
    this.#attempts = 0;
    clearTimeout(this.#timer);
    if (!event.resumed) this.#joining = this.#options.join ?? true;
    this.after = this.#floor = event.seq ?? 0; // it goes on from here, wherever we were
    this.sessionId = event.session_id;
    this.#acknowledge(event.received);
    for (const entry of this.#outgoing) entry.sent = entry.answer !== null;
    this.#answers.suspect();
    this.#catching = true;
    this.#become("open");
    this.#save();
    this.#deliver(event);
    this.#catchUp(true);
  }

  /**
   * What was asked goes again only when it is clear that what was missed has no answer to it. No
   * frame says that this is all: nothing open, or a moment without a fact of the log, does.
   */
  #catchUp(again) {
    if (this.state !== "open") return; // somebody has closed it just now
    const open = this.#outgoing.some(({ asks, sent, times }) => asks && times > 0 && !sent);
    if (!open && !this.#answers.suspects()) return this.#caughtUp();
    if (!again) return;
    clearTimeout(this.#quiet);
    this.#quiet = setTimeout(() => this.#caughtUp(), QUIET);
  }

  #caughtUp() {
    clearTimeout(this.#quiet);
    this.#catching = false;
    for (const answer of this.#answers.lose()) {
      for (const entry of this.#outgoing) {
        if (entry.answer === answer.requestId) Object.assign(entry, { answer: null, sent: false });
      }
      call(this.#options.onAnswer, answer);
    }
    this.#forgetOldRequests();
    if (this.#joining) this.#write({ type: "system.user.joined", id: newId() });
    this.#joining = false;
    this.#flush();
  }

  /** Whether an event was not seen yet; those without a place in the log are always new. */
  #isNew({ seq, type }) {
    if (seq == null) return true;
    if (seq <= this.#floor || this.#seen.has(`${seq} ${type}`)) return false;
    this.#seen.add(`${seq} ${type}`);
    this.after = Math.max(this.after, seq);
    return true;
  }

  #answer(event) {
    const { events, answer, gap } = this.#answers.take(event);
    if (gap) return this.#again("a piece of an answer is missing");
    this.#settle(event.type, answer);
    for (const each of events) this.#deliver(each);
    if (events.length > 0) call(this.#options.onAnswer, answer);
  }

  #deliver(event) {
    call(this.#options.onEvent, event);
    for (const name of [event.type, `${event.type.split(".")[0]}.*`, "*"]) {
      for (const listener of [...(this.#listeners.get(name) ?? [])]) call(listener, event);
    }
    for (const reader of this.#readers) {
      if (reader.waiting.length <= MAX_UNREAD) reader.waiting.push(event);
      reader.wake();
    }
  }

  // -- what goes

  /** Send what waits, in order, unless what was missed is still coming. */
  #flush() {
    if (this.state !== "open" || this.#catching) return;
    for (const entry of this.#outgoing) {
      if (entry.sent) continue;
      this.#write(entry.event);
      Object.assign(entry, { sent: true, times: entry.times + 1 });
    }
    this.#outgoing = this.#outgoing.filter(({ again }) => again).slice(-MAX_UNSENT);
  }

  #write(event) {
    this.#sent.add(event.id);
    this.#socket.send(JSON.stringify(event));
  }

  /** The server has what is ours up to this id; whether it was answered is another question. */
  #acknowledge(id) {
    const found = this.#outgoing.findIndex(({ event }) => event.id === id);
    this.#outgoing = this.#outgoing.filter(({ asks }, place) => place > found || asks);
  }

  /** An answer is for the request it names, else the oldest; with its end the request is done. */
  #settle(type, { requestId, request }) {
    const has = ({ answer, event }) => answer === requestId || event.id === request;
    if (type.endsWith(".end")) this.#outgoing = this.#outgoing.filter((entry) => !has(entry));
    this.#names ||= request !== null;
    const free = ({ asks, times, answer }) => !this.#names && asks && times > 0 && !answer;
    const asked = this.#outgoing.find(has) ?? this.#outgoing.find(free);
    if (asked && type.endsWith(".start")) Object.assign(asked, { answer: requestId, sent: true });
  }

  /** What was asked already is not asked again after something newer, nor for ever. */
  #forgetOldRequests() {
    const newest = this.#outgoing.findLastIndex(({ asks }) => asks);
    this.#outgoing = this.#outgoing.filter(({ asks, times, sent }, place) => {
      return !asks || sent || times === 0 || (place === newest && times < MAX_ASKED);
    });
  }

  #save() {
    if (this.state === "closed") return;
    const stored = JSON.stringify({ sessionId: this.sessionId, after: this.after });
    this.#options.storage?.setItem(this.#key, stored);
  }
}

/** A set that forgets its oldest. */
class Recent {
  #known = new Set();

  has = (value) => this.#known.has(value);
  clear = () => this.#known.clear();

  add(value) {
    this.#known.add(value);
    if (this.#known.size > MAX_KNOWN) this.#known.delete(this.#known.values().next().value);
  }
}

/** Call a function of the application; its failure is reported, and stops nothing here. */
function call(listener, ...values) {
  try {
    listener?.(...values);
  } catch (error) {
    (globalThis.reportError ?? console.error)(error);
  }
}

/** A random id, also where a page without TLS has no randomUUID. */
function newId() {
  const words = crypto.getRandomValues(new Uint32Array(4));
  return [...words].map((word) => word.toString(16).padStart(8, "0")).join("");
}
