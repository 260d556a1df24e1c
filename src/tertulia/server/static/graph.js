/**
 * Draws an event graph as SVG, from its root down, and lights up the nodes that work.
 *
 * @typedef {{nodes: {name: string, kind: string}[], edges: [string, string][]}} Graph
 */

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 40;
const ROW = 84; // from one layer to the next
const GAP = 22; // between two nodes of a layer
const GLOW = 450; // ms that a node stays lit, so that an eye can see it

/** Draw a graph into an element, and return what lights up its nodes. */
export function draw(graph, into) {
  const { nodes, lines } = place(graph);
  const width = Math.max(...nodes.map((node) => node.x + node.width / 2)) + 8;
  const height = Math.max(...nodes.map((node) => node.y)) + HEIGHT / 2 + 8;
  const names = graph.nodes.map((node) => node.name);
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  svg.setAttribute("aria-label", `The graph of the session, with the nodes ${names.join(", ")}`);
  svg.style.maxWidth = `${width * 1.25}px`;
  const edges = lines.map((stops) => ({ to: stops.at(-1).name, line: edge(stops) }));
  const drawn = nodes.filter((node) => !node.bend);
  const boxes = new Map(drawn.map((node) => [node.name, box(node)]));
  svg.append(arrowHead(), ...edges.map(({ line }) => line), ...boxes.values());
  into.replaceChildren(svg);
  return new Lights(boxes, edges);
}

/** The nodes that work just now, and the edges into them. */
class Lights {
  #timers = new Map();

  constructor(boxes, edges) {
    this.boxes = boxes;
    this.edges = edges;
  }

  /** A node works; `phase` is "end" when it has done so. */
  show(name, phase) {
    clearTimeout(this.#timers.get(name));
    this.#set(name, true);
    if (phase !== "start") this.#timers.set(name, setTimeout(() => this.#set(name, false), GLOW));
  }

  /** Nobody knows what works: nothing does. */
  clear() {
    for (const name of this.boxes.keys()) this.#set(name, false);
  }

  #set(name, active) {
    this.boxes.get(name)?.classList.toggle("active", active);
    for (const { to, line } of this.edges) if (to === name) line.classList.toggle("active", active);
  }
}

/**
 * Give every node its layer (the longest way from the root) and its place in it. An edge that
 * skips layers gets a bend in each of them, which takes a place as a node does.
 */
function place({ nodes, edges }) {
  const depth = depths(nodes, edges);
  const at = new Map(nodes.map((node) => [node.name, { ...node, width: widthOf(node), from: [] }]));
  const layers = [];
  const put = (node, row) => (layers[row] ??= []).push(node);
  for (const [name, node] of at) put(node, depth.get(name));
  const lines = edges.map(([from, to]) => {
    const stops = [at.get(from)];
    for (let row = depth.get(from) + 1; row < depth.get(to); row++) {
      stops.push({ bend: true, width: 10, from: [stops.at(-1)] });
      put(stops.at(-1), row);
    }
    at.get(to).from.push(stops.at(-1));
    return [...stops, at.get(to)];
  });
  const space = (layer) => layer.reduce((sum, node) => sum + node.width + GAP, -GAP);
  const middle = Math.max(...layers.map(space)) / 2 + 8;
  layers.forEach((layer, row) => {
    layer.sort((a, b) => wish(a, middle) - wish(b, middle));
    let x = middle - space(layer) / 2;
    for (const node of layer) {
      Object.assign(node, { x: x + node.width / 2, y: row * ROW + HEIGHT / 2 + 8 });
      x += node.width + GAP;
    }
  });
  return { nodes: layers.flat(), lines };
}

function depths(nodes, edges) {
  const depth = new Map(nodes.map(({ name }) => [name, 0]));
  for (let round = 0; round < nodes.length; round++) {
    for (const [from, to] of edges) depth.set(to, Math.max(depth.get(to), depth.get(from) + 1));
  }
  return depth;
}

function widthOf({ name, kind }) {
  return Math.max(84, shorten(name).length * 7.6 + 26, shorten(kind).length * 6.2 + 22);
}

/** Where a node would best be: below those it hears from. */
function wish({ from }, middle) {
  return from.length === 0 ? middle : from.reduce((sum, { x }) => sum + x, 0) / from.length;
}

/** A line from node to node, through its bends. */
function edge(stops) {
  let d = `M ${stops[0].x} ${stops[0].y + HEIGHT / 2}`;
  stops.slice(1).forEach((stop, index) => {
    const [from, last] = [stops[index], stop.name !== undefined];
    const [y1, y2] = [from.y + HEIGHT / 2, last ? stop.y - HEIGHT / 2 - 5 : stop.y - HEIGHT / 2];
    const half = (y1 + y2) / 2;
    d += ` C ${from.x} ${half} ${stop.x} ${half} ${stop.x} ${y2}`;
    if (!last) d += ` L ${stop.x} ${stop.y + HEIGHT / 2}`;
  });
  return make("path", { class: "edge", d, "marker-end": "url(#arrow)" });
}

function box({ name, kind, x, y, width }) {
  const ends = kind === "root" || kind === "sink";
  const group = make("g", { class: ends ? "node end" : "node", "data-node": name });
  group.append(
    make("rect", { class: "box", x: x - width / 2, y: y - HEIGHT / 2, width, height: HEIGHT, rx: 11 }),
    make("text", { x, y: ends ? y + 4.5 : y - 1 }, shorten(name)),
  );
  if (!ends) group.append(make("text", { class: "kind", x, y: y + 13 }, shorten(kind)));
  group.append(make("title", {}, `${name} (${kind})`));
  return group;
}

function arrowHead() {
  const size = { markerWidth: 7, markerHeight: 7, refX: 5, refY: 3.5, orient: "auto" };
  const marker = make("marker", { id: "arrow", ...size });
  marker.append(make("path", { class: "head", d: "M 0 0 L 7 3.5 L 0 7 z" }));
  return marker;
}

function shorten(name) {
  return name.length > 18 ? `${name.slice(0, 17)}…` : name;
}

function make(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}
