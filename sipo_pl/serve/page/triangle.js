// Three weights as a point in a triangle: to be dragged, clicked, or moved by the arrow keys.

import { svg } from "./svg.js";

const WIDTH = 320, HEIGHT = 262;
const CORNERS = [[160, 26], [36, 236], [284, 236]];
const STEP = 0.05;
const MOVES = { // towards which corners an arrow moves, and from which
  ArrowUp: [1, -0.5, -0.5],
  ArrowDown: [-1, 0.5, 0.5],
  ArrowLeft: [0, 1, -1],
  ArrowRight: [0, -1, 1],
};

export function makeTriangle(place, objectives, weights) {
  const handle = svg("circle", { r: 10, class: "chosen handle" });
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, tabindex: 0, role: "application" },
    svg("polygon", { points: CORNERS.map((corner) => corner.join()).join(" "), class: "side" }));
  objectives.forEach((objective, index) => {
    const [x, y] = CORNERS[index];
    const anchor = ["middle", "start", "end"][index];
    const across = [0, -32, 32][index];
    picture.append(svg("text", { x: x + across, y: index === 0 ? y - 10 : y + 18, "text-anchor": anchor }, objective.name));
  });
  picture.append(handle);
  place.append(picture);
  place.hidden = false;

  const choose = (event) => {
    const box = picture.getBoundingClientRect();
    const x = ((event.clientX - box.left) * WIDTH) / box.width;
    const y = ((event.clientY - box.top) * HEIGHT) / box.height;
    weights.set(inside(barycentric(x, y)));
  };
  picture.addEventListener("pointerdown", (event) => {
    picture.setPointerCapture(event.pointerId);
    picture.focus();
    choose(event);
  });
  picture.addEventListener("pointermove", (event) => {
    if (picture.hasPointerCapture(event.pointerId)) choose(event);
  });
  picture.addEventListener("keydown", (event) => {
    const move = MOVES[event.key];
    if (!move) return;
    event.preventDefault();
    const before = weights.values;
    weights.set(inside(before.map((value, index) => value + STEP * move[index])));
  });

  const show = () => {
    const values = weights.values;
    const at = (axis) => values.reduce((sum, value, index) => sum + value * CORNERS[index][axis], 0);
    handle.setAttribute("cx", at(0));
    handle.setAttribute("cy", at(1));
    const told = objectives.map((objective, index) => `${objective.name} ${values[index].toFixed(2)}`);
    picture.setAttribute("aria-label", `Weights: ${told.join(", ")}. Arrow keys move the point.`);
  };
  weights.addEventListener("change", show);
  show();
}

function barycentric(x, y) {
  const [[ax, ay], [bx, by], [cx, cy]] = CORNERS;
  const area = (by - cy) * (ax - cx) + (cx - bx) * (ay - cy);
  const a = ((by - cy) * (x - cx) + (cx - bx) * (y - cy)) / area;
  const b = ((cy - ay) * (x - cx) + (ax - cx) * (y - cy)) / area;
  return [a, b, 1 - a - b];
}

function inside(values) {
  const kept = values.map((value) => Math.max(0, value));
  const sum = kept.reduce((a, b) => a + b, 0);
  return kept.map((value) => value / sum);
}
