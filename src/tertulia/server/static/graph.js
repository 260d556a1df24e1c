/**
 * Draws an event graph as SVG, from its root down, and lights up the nodes that work.
 *
 * @typedef {{nodes: {name: string, kind: string}[], edges: [number, number][]}} Graph
 * An edge has the places of its nodes. Root and sink are not among them, and are added here.
 */

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 40;
const ROW = 84; // from one layer to the next
const GAP = 22; // between two nodes of a layer
const GLOW = 450; // ms that a node stays lit, so that an eye can see it

/**
 * Draw a graph into an element, and return what lights up its nodes.
 * @param {Graph} graph
 * @param {Element} into
 */
export function draw(graph, into) {
  const { nodes, lines } = place(withEnds(graph));
  const width = Math.max(...nodes.map((node) => node.x + node.width / 2)) + 8;
  const height = Math.max(...nodes.map((node) => node.y)) + HEIGHT / 2 + 8;
  const names = graph.nodes.map((node) => node.name);
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  svg.setAttribute("aria-label", `The graph of the session, with the nodes ${names.join(", ")}`);
  svg.style.maxWidth = `${width * 1.25}px`;
  const edges = lines.map((stops) => ({ name: stops.at(-1).name, shape: edge(stops) }));
  const drawn = nodes.filter((node) => !node.bend);
  const boxes = drawn.map((node) => ({ name: node.name, shape: box(node) }));
  svg.append(arrowHead(), ...edges.map(({ shape }) => shape), ...boxes.map(({ shape }) => shape));
  into.replaceChildren(svg);
  return new Lights([...boxes, ...edges]);
}

/** A graph with its root and its sink. */
function withEnds({ nodes, edges }) {
  const [root, sink] = [nodes.length, nodes.length + 1];
  const places = nodes.map((_, index) => index);
  const first = places.filter((index) => !edges.some(([, to]) => to === index));
  const last = places.filter((index) => !edges.some(([from]) => from === index));
  return {
    nodes: [...nodes, { name: "root", kind: "root" }, { name: "sink", kind: "sink" }],
    edges: [...first.map((to) => [root, to]), ...edges, ...last.map((from) => [from, sink])],
  };
}

/** The nodes that work just now, and the edges into them. */
class Lights {
  #shapes;
  #timers = new Map();

  constructor(shapes) {
    this.#shapes = shapes;
  }

  /** A node works, from its "start" to its "end"; without a phase, for a moment. */
  show(name, phase = "end") {
    clearTimeout(this.#timers.get(name));
    this.#set(name, true);
    if (phase !== "start") this.#timers.set(name, setTimeout(() => this.#set(name, false), GLOW));
  }

  /** Nobody knows what works: nothing does. */
  clear() {
    for (const { name } of this.#shapes) this.#set(name, false);
  }

  #set(name, active) {
    const meant = this.#shapes.filter((each) => each.name === name);
    for (const { shape } of meant) shape.classList.toggle("active", active);
  }
}

/**
 * Give every node its layer (the longest way from the root) and its place in it. An edge that
 * skips layers gets a bend in each of them, which takes a place as a node does.
 */
function place({ nodes, edges }) {
  const depth = depths(nodes, edges);
  const placed = nodes.map((node) => ({ ...node, width: widthOf(node), from: [] }));
  const layers = [];
  const put = (node, row) => (layers[row] ??= []).push(node);
  placed.forEach((node, index) => put(node, depth[index]));
  const lines = edges.map(([from, to]) => {
    const stops = [placed[from]];
    for (let row = depth[from] + 1; row < depth[to]; row++) {
      stops.push({ bend: true, width: 10, from: [stops.at(-1)] });
      put(stops.at(-1), row);
    }
    placed[to].from.push(stops.at(-1));
    return [...stops, placed[to]];
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
  const depth = nodes.map(() => 0);
  for (let round = 0; round < nodes.length; round++) {
    for (const [from, to] of edges) depth[to] = Math.max(depth[to], depth[from] + 1);
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
    const [from, last] = [stops[index], !stop.bend];
    const [y1, y2] = [from.y + HEIGHT / 2, last ? stop.y - HEIGHT / 2 - 5 : stop.y - HEIGHT / 2];
    const half = (y1 + y2) / 2;
    d += ` C ${from.x} ${half} ${stop.x} ${half} ${stop.x} ${y2}`;
    if (!last) d += ` L ${stop.x} ${stop.y + HEIGHT / 2}`;
  });
  return make("path", { class: "edge", d, "marker-end": "url(#arrow)" });
}

function box({ name, kind, x, y, width }) {
  const height = HEIGHT;
  const ends = kind === "root" || kind === "sink";
  const group = make("g", { class: ends ? "node end" : "node", "data-node": name });
  group.append(
    make("rect", { class: "box", x: x - width / 2, y: y - HEIGHT / 2, width, height, rx: 11 }),
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
