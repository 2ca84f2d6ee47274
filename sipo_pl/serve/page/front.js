// The run's measured front, a plot for every two objectives, with the chosen weights marked.

import { svg } from "./svg.js";

const WIDTH = 340, ONE = 235, SEVERAL = 185; // of a plot that is alone, and of one among others
const LEFT = 60, RIGHT = 12, TOP = 12, BOTTOM = 42;
const SAME = 0.0051;

export function makeFront(place, note, told, weights) {
  if (!told.front) {
    note.textContent = "This folder holds no measured front; a run that was evaluated has one.";
    return;
  }
  const { objectives, front } = told;
  const plots = [];
  for (let first = 0; first < objectives.length; first += 1) {
    for (let second = first + 1; second < objectives.length; second += 1) {
      plots.push(makePlot(place, objectives, front, [first, second], weights));
    }
  }
  const show = () => {
    const chosen = locate(front.points, weights.values);
    plots.forEach((mark) => mark(chosen));
    const shape = chosen.measured ? "The filled mark is the chosen weight, measured."
      : chosen.between ? "The open mark is the chosen weight, estimated between its measured neighbours."
      : `The open mark is the nearest measured weight, ${chosen.nearest.join(", ")}.`;
    note.textContent = `Mean rewards over ${front.prompts} test prompts, larger is better; the square is the base model. `
      + `${shape} A click on a point chooses its weights.`;
  };
  weights.addEventListener("change", show);
  show();
}

// Where the chosen weights lie: on a measured point, between two (of two objectives), or nearest to one.
function locate(points, values) {
  const distance = (point) => Math.hypot(...point.weights.map((weight, index) => weight - values[index]));
  const nearest = points.reduce((best, point) => (distance(point) < distance(best) ? point : best));
  if (distance(nearest) < SAME) return { rewards: nearest.rewards, measured: true };
  if (values.length === 2) {
    const sorted = [...points].sort((a, b) => a.weights[0] - b.weights[0]);
    const after = sorted.findIndex((point) => point.weights[0] > values[0]);
    if (after > 0) {
      const [low, high] = [sorted[after - 1], sorted[after]];
      const share = (values[0] - low.weights[0]) / (high.weights[0] - low.weights[0]);
      return { rewards: low.rewards.map((reward, index) => reward + share * (high.rewards[index] - reward)), between: true };
    }
  }
  return { rewards: nearest.rewards, nearest: nearest.weights };
}

function makePlot(place, objectives, front, [first, second], weights) {
  const height = objectives.length === 2 ? ONE : SEVERAL;
  const shown = [...front.points.map((point) => point.rewards), ...(front.base ? [front.base] : [])];
  const x = scale(shown.map((rewards) => rewards[first]), LEFT, WIDTH - RIGHT);
  const y = scale(shown.map((rewards) => rewards[second]), height - BOTTOM, TOP);
  const [across, up] = [objectives[first].name, objectives[second].name];
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${height}`, class: "plot", role: "group",
    "aria-label": `Front of ${across} and ${up}` },
    svg("rect", { x: LEFT, y: TOP, width: WIDTH - LEFT - RIGHT, height: height - TOP - BOTTOM, class: "frame" }),
    svg("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: height - 6, "text-anchor": "middle" }, across),
    svg("text", { x: 0, y: 0, "text-anchor": "middle", transform: `translate(12 ${(TOP + height - BOTTOM) / 2}) rotate(-90)` }, up));
  for (const tick of x.ticks) {
    picture.append(svg("text", { x: x(tick), y: height - BOTTOM + 15, "text-anchor": "middle", class: "tick" }, x.label(tick)));
  }
  for (const tick of y.ticks) {
    picture.append(svg("text", { x: LEFT - 5, y: y(tick) + 4, "text-anchor": "end", class: "tick" }, y.label(tick)));
  }
  if (objectives.length === 2) {
    const path = [...front.points].sort((a, b) => a.weights[0] - b.weights[0]);
    picture.append(svg("polyline", { class: "path", points: path.map(({ rewards }) => `${x(rewards[first])},${y(rewards[second])}`).join(" ") }));
  }
  if (front.base) {
    picture.append(svg("rect", { x: x(front.base[first]) - 4, y: y(front.base[second]) - 4, width: 8, height: 8, class: "base" },
      svg("title", {}, "base model")));
  }
  for (const point of front.points) picture.append(measured(point, x(point.rewards[first]), y(point.rewards[second]), weights));
  const mark = svg("circle", { r: 7, class: "chosen" });
  picture.append(mark);
  place.append(picture);
  return (chosen) => {
    mark.setAttribute("cx", x(chosen.rewards[first]));
    mark.setAttribute("cy", y(chosen.rewards[second]));
    mark.setAttribute("class", chosen.measured ? "chosen" : "chosen estimated");
  };
}

function measured(point, x, y, weights) {
  const name = point.weights.join(", ");
  const circle = svg("circle", { cx: x, cy: y, r: 4.5, class: "measured", tabindex: 0, role: "button", "aria-label": `choose weights ${name}` },
    svg("title", {}, name));
  circle.addEventListener("click", () => weights.set(point.weights));
  circle.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    weights.set(point.weights);
  });
  return circle;
}

// A linear scale with a margin and a few round ticks.
function scale(values, from, to) {
  const low = Math.min(...values), high = Math.max(...values);
  const margin = (high - low || Math.abs(high) || 1) * 0.12;
  const start = low - margin, end = high + margin;
  const place = (value) => from + ((value - start) / (end - start)) * (to - from);
  const raw = (end - start) / 4;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  place.ticks = [];
  for (let tick = Math.ceil(start / step) * step; tick <= end; tick += step) place.ticks.push(tick);
  place.label = (tick) => (Math.abs(tick) < step / 2 ? 0 : tick).toFixed(digits).replace("-", "−");
  return place;
}
