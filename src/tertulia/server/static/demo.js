/** The demo page: a chat, the graph of its session and the events that go through it. */

import { draw } from "./graph.js";
import { connect } from "./tertulia.js";

const MOST_EVENTS = 300; // rows in the list of events
const MOST_MESSAGES = 1000;

const $ = (id) => document.getElementById(id);
const answers = new Map(); // the bubble of each answer, by its request
let lights = null;
let live = null;
let countdown = null;

/** An address of the server, beside the folder of this file. */
const place = (path) => new URL(path, import.meta.url);

/** The token, which stands behind the # of the address: that part is sent to nobody. */
const token = () => new URLSearchParams(location.hash.slice(1)).get("token") ?? undefined;

/** Open the session of this tab again, with all that was said in it, or a new one. */
function start() {
  live = connect(place("../ws"), {
    after: 0,
    token: token(),
    variables: { lights: true }, // the demo's server then tells which node works
    storage: sessionStorage,
    onState: showState,
    onAnswer: showAnswer,
    onEvent: showEvent,
  });
}

function showEvent(event) {
  if (event.type !== "demo.node") list(event, "out"); // these are to be seen in the graph
  const said = SAID[event.type];
  if (said) said(event);
}

const SAID = {
  "agent.ready": ready,
  "agent.transcript.update": ({ role, content }) => role === "user" && bubble("user", content),
  "agent.speak": ({ text }) => speak(bubble("agent", text)),
  "agent.error": ({ message }) => notice(message, "error"),
  "agent.end_call": () => notice("The conversation has ended."),
  "demo.node": ({ name, phase }) => lights?.show(name, phase),
};

function ready({ session_id: id }) {
  $("session").textContent = id.length > 12 ? `${id.slice(0, 12)}…` : id;
  $("session").title = id;
  for (const waiting of document.querySelectorAll(".pending")) waiting.classList.remove("pending");
  drawGraph(id);
}

async function drawGraph(id) {
  const headers = token() ? { Authorization: `Bearer ${token()}` } : {};
  const address = place(`../graph.json?session_id=${encodeURIComponent(id)}`);
  const answer = await fetch(address, { headers });
  const graph = answer.ok ? await answer.json() : { nodes: [] };
  if (graph.nodes.length > 0) lights = draw(graph, $("graph"));
}

// -- the chat

function say(text) {
  const said = text.trim();
  if (said === "" || live.state === "closed") return;
  const event = live.say(said);
  const shown = bubble("user", said);
  if (live.state !== "open") shown.classList.add("pending");
  list(event, "in");
  list({ type: "system.llm.request" }, "in");
  $("text").value = "";
  $("scroll").scrollTop = $("scroll").scrollHeight;
}

function showAnswer({ requestId, text, state }) {
  const shown = answers.get(requestId) ?? bubble("agent", "");
  answers.set(requestId, shown);
  keepingPlace(() => {
    shown.textContent = text;
    for (const each of ["streaming", "lost"]) shown.classList.toggle(each, state === each);
    const note = { interrupted: "stopped here", lost: "cut off: the server went away" }[state];
    if (note) shown.dataset.note = note;
    else delete shown.dataset.note;
  });
  if (state !== "streaming") answers.delete(requestId);
  if (state === "done") speak(shown);
  $("stop").hidden = answers.size === 0;
}

function bubble(who, text) {
  const item = document.createElement("li");
  item.className = `message ${who}`;
  item.textContent = text;
  add(item);
  return item;
}

function notice(text, kind = "") {
  const item = document.createElement("li");
  item.className = `notice ${kind}`;
  item.textContent = text;
  add(item);
}

function add(item) {
  if (item.classList.contains("user")) $("welcome").hidden = true;
  keepingPlace(() => $("messages").append(item));
  if ($("messages").childElementCount > MOST_MESSAGES) $("messages").firstElementChild.remove();
}

/** Change the messages; who reads the newest goes on doing so, and nobody else is moved. */
function keepingPlace(change) {
  const scroll = $("scroll");
  const below = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight;
  change();
  if (below < 80) scroll.scrollTop = scroll.scrollHeight;
}

/** Tell a screen reader what was said, once it is whole. */
function speak(item) {
  $("spoken").textContent = item.textContent;
}

// -- the connection

function showState(state, { code, reason, retryIn } = {}) {
  clearInterval(countdown);
  const tell = (text) => ($("state").textContent = text);
  $("state").dataset.state = state;
  if (state === "connecting") tell("Connecting");
  if (state === "open") tell("Connected");
  if (state === "closed") closed(code, reason, tell);
  if (state !== "open") lights?.clear();
  if (state === "waiting") {
    const until = Date.now() + retryIn;
    const left = () => Math.max(0, Math.ceil((until - Date.now()) / 1000));
    const count = () => tell(`Lost; again in ${left()} s`);
    countdown = setInterval(count, 500);
    count();
  }
  $("send").disabled = state === "closed";
}

function closed(code, reason, tell) {
  const why = { 1000: "Ended", 4401: "A token is needed", 4409: "Open in another tab" }[code];
  tell(why ?? `Closed: ${reason || code}`);
  if (code === 4409) notice("This session is open in another tab. Reload to take it back.");
  $("stop").hidden = true;
  if (code === 4401) $("ask").showModal();
}

// -- the list of events

let newest = null; // {item, event, count, length} of the row on top

function list(event, way) {
  lights?.show(way === "in" ? "root" : "sink");
  const chunk = event.type === "agent.llm.response.chunk";
  if (chunk && newest?.event.type === event.type && newest.event.request_id === event.request_id) {
    newest.count += 1;
    newest.length += event.text.length;
    newest.gist.textContent = `× ${newest.count}, ${newest.length} characters`;
    return;
  }
  const item = document.createElement("li");
  item.className = way;
  const cell = (name, text) => {
    const span = document.createElement("span");
    span.className = name;
    span.textContent = text;
    item.append(span);
    return span;
  };
  const [arrow, from] = way === "in" ? ["→", "from this page"] : ["←", "from the server"];
  cell("way", arrow).title = from;
  cell("type", event.type).title = event.type;
  const gist = cell("gist", gistOf(event));
  cell("seq", event.seq == null ? "" : `#${event.seq}`);
  $("events").prepend(item);
  newest = { event, gist, count: 1, length: event.text?.length ?? 0 };
  if ($("events").childElementCount > MOST_EVENTS) $("events").lastElementChild.remove();
}

function gistOf(event) {
  const said = event.content ?? event.text ?? event.message ?? event.name ?? event.title ?? "";
  return event.phase ? `${said} ${event.phase}` : String(said).slice(0, 200);
}

// -- what the user does

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  say($("text").value);
});

$("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  say($("text").value);
});

$("stop").addEventListener("click", () => {
  list(live.interrupt(), "in");
  $("text").focus();
});

$("renew").addEventListener("click", () => {
  live.close();
  sessionStorage.clear();
  location.reload();
});

for (const offer of document.querySelectorAll("[data-say]")) {
  offer.addEventListener("click", () => say(offer.dataset.say.replaceAll("\n", " ")));
}

$("ask").addEventListener("close", () => {
  location.hash = new URLSearchParams({ token: $("token").value });
  location.reload();
});

start();
$("text").focus();
