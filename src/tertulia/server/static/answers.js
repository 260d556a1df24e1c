/**
 * The answers of a session, put together from their pieces, of which some may come again.
 *
 * @typedef {object} Answer
 * @property {string} requestId its id
 * @property {string|null} request the id of the request that it is for, where the server says so
 * @property {string} text what there is of it
 * @property {"streaming" | "done" | "interrupted" | "lost"} state "lost": it is no part of the
 *   history, because it failed, or because the server was killed in the middle of it
 * @property {number|null} seq its place in the log, once it is there
 * @property {string|null} kind at its end, where it is no plain answer: "ban", "placeholder", "emit"
 * @property {string|null} policy which policy refused it, of a "ban"
 */

const START = "agent.llm.response.start";
const CHUNK = "agent.llm.response.chunk";
const END = "agent.llm.response.end";
const MAX_ANSWERS = 256; // that are remembered to see repetitions

/** What is known of the answers; `Live` tells it every event of an answer. */
export class Answers {
  #answers = new Map();

  /**
   * What an event changes: the `events` to deliver for it, the `answer` as it is now, and whether
   * a piece before this one is missing (`gap`).
   * @returns {{events: object[], answer: Answer, gap: boolean}}
   */
  take(event) {
    const requestId = event.request_id ?? "";
    const known = this.#answers.get(requestId);
    const begins = event.type === START && (requestId === "" || isAnother(known, event));
    const answer = known === undefined || begins ? this.#add(requestId, event) : known;
    answer.suspect = false;
    answer.request = requestOf(event) ?? answer.request;
    let events = [event];
    if (event.type === CHUNK) events = pieceOf(answer, event);
    if (event.type === END) events = endOf(answer, event);
    if (event.type === START && !begins) {
      answer.told = { start: event, text: "", count: 0 };
      events = [];
    }
    return { events: events ?? [], answer: shown(answer), gap: events === null };
  }

  #add(requestId, { offset }) {
    const answer = { requestId, request: null, text: "", state: "streaming", seq: null };
    Object.assign(answer, { kind: null, policy: null });
    answer.told = null;
    answer.count = offset ?? 0; // of the code points: offsets count these, strings do not
    this.#answers.delete(requestId);
    this.#answers.set(requestId, answer);
    if (this.#answers.size > MAX_ANSWERS) this.#answers.delete(this.#answers.keys().next().value);
    return answer;
  }

  /** The connection is a new one: whether an open answer goes on has to be seen. */
  suspect() {
    for (const answer of this.#answers.values()) answer.suspect = answer.state === "streaming";
  }

  /** Whether there is an open answer of which nothing was heard on this connection. */
  suspects() {
    return [...this.#answers.values()].some((answer) => answer.suspect);
  }

  /** Take the suspects for lost, and return them. */
  lose() {
    const lost = [...this.#answers.values()].filter((answer) => answer.suspect);
    for (const answer of lost) Object.assign(answer, { suspect: false, state: "lost" });
    return lost.map(shown);
  }
}

/** @returns {Answer} */
function shown({ requestId, request, text, state, seq, kind, policy }) {
  return { requestId, request, text, state, seq, kind, policy };
}

function requestOf({ metadata }) {
  return metadata?.request ?? null;
}

/** Whether a start is not that of the answer which is known: another request lets it go on. */
function isAnother(known, event) {
  if (known === undefined) return true;
  const [before, now] = [known.request, requestOf(event)];
  return known.state === "done" && before !== null && now !== null && before !== now;
}

/**
 * What is new in a piece of an answer, or null where one before it is missing. An answer that is
 * told again from its start gives nothing until it says more than was known; where it says
 * something else, its start and its text are given again.
 */
function pieceOf(answer, event) {
  const into = answer.told ?? answer;
  const known = event.offset == null ? 0 : into.count - event.offset;
  if (known < 0) return null;
  const points = [...event.text].slice(known);
  const text = points.join("");
  into.text += text;
  into.count += points.length;
  answer.state = "streaming";
  if (into === answer) return text === "" ? [] : [{ ...event, text }];
  const behind = answer.text.startsWith(into.text);
  return behind ? [] : takeOver(answer);
}

function endOf(answer, event) {
  const events = answer.told === null ? [] : takeOver(answer);
  answer.state = event.discarded ? "lost" : event.interrupted ? "interrupted" : "done";
  answer.seq = event.seq ?? null;
  answer.kind = event.metadata?.kind ?? null;
  answer.policy = event.metadata?.policy ?? null;
  return [...events, event];
}

/** Make what is told again the answer, and say what is new in it. */
function takeOver(answer) {
  const { start, text, count } = answer.told;
  const { resumed, ...base } = start;
  const goesOn = text.startsWith(answer.text);
  const chunk = {
    ...base,
    type: CHUNK,
    text: goesOn ? text.slice(answer.text.length) : text,
    offset: goesOn ? answer.count : 0,
  };
  Object.assign(answer, { text, count, told: null });
  return [...(goesOn ? [] : [start]), ...(chunk.text === "" ? [] : [chunk])];
}
