// The browser of answers: filters, sorts and pages what the page holds. Every text is set as text, never as markup.
"use strict";
(() => {
  const PER_PAGE = 10;
  const WAIT = 150; // milliseconds after the last key before a search
  const EVERY = "*";
  const data = JSON.parse(document.getElementById("answers").textContent);
  const find = (name) => document.getElementById(`browse-${name}`);
  const controls = ["left", "left-weight", "right", "right-weight", "objective", "least", "most", "sort", "text"];
  const list = find("list");
  const lower = data.texts.map((text) => text.toLowerCase());
  const lowerPrompts = data.prompts.map((text) => text.toLowerCase());
  const shelves = data.prompts.map(() => new Map());
  for (const answer of data.answers) {
    const [prompt, method, point] = answer;
    const key = `${method} ${point}`;
    const shelf = shelves[prompt];
    if (!shelf.has(key)) shelf.set(key, []);
    shelf.get(key).push(answer);
  }
  const anyPoint = data.points.indexOf(""); // of methods with one answer for all weights
  let page = 0;

  function answersOf(prompt, method, point) {
    const shelf = shelves[prompt];
    return shelf.get(`${method} ${point}`) || shelf.get(`${method} ${anyPoint}`) || [];
  }

  function mean(answers, objective) {
    if (!answers.length) return null;
    return answers.reduce((sum, answer) => sum + answer[4][objective], 0) / answers.length;
  }

  function read() {
    const value = Object.fromEntries(controls.map((name) => [name, find(name).value]));
    const number = (text) => (text.trim() === "" ? null : Number(text));
    return {
      left: Number(value.left),
      leftPoint: Number(value["left-weight"]),
      right: value.right === "" || value.right === EVERY ? value.right : Number(value.right),
      rightPoint: Number(value["right-weight"] === "" ? value["left-weight"] : value["right-weight"]),
      objective: Number(value.objective),
      least: number(value.least),
      most: number(value.most),
      sort: value.sort,
      text: value.text.toLowerCase(),
    };
  }

  // what stands beside the left answer: [method, answers] of none, one or every method
  function beside(prompt, asked) {
    if (asked.right === "") return [];
    const methods = asked.right === EVERY ? data.methods.map((_, index) => index) : [asked.right];
    const same = (method) => method === asked.left && asked.rightPoint === asked.leftPoint;
    return methods
      .filter((method) => asked.right !== EVERY || !same(method))
      .map((method) => [method, answersOf(prompt, method, asked.rightPoint)]);
  }

  function holds(entry, text) {
    if (!text || lowerPrompts[entry.prompt].includes(text)) return true;
    return [entry.left, ...entry.right.map((one) => one[1])].some((shown) => shown.some((one) => lower[one[3]].includes(text)));
  }

  function within(score, asked) {
    if (asked.least === null && asked.most === null) return true;
    return score !== null && (asked.least === null || score >= asked.least) && (asked.most === null || score <= asked.most);
  }

  function chosen(asked) {
    const entries = [];
    for (let prompt = 0; prompt < data.prompts.length; prompt++) {
      const left = answersOf(prompt, asked.left, asked.leftPoint);
      const right = beside(prompt, asked);
      const score = mean(left, asked.objective);
      const others = right.map((one) => mean(one[1], asked.objective)).filter((one) => one !== null);
      const gap = score === null || !others.length ? null : Math.max(...others) - score;
      const entry = { prompt, left, right, score, gap };
      if (within(score, asked) && holds(entry, asked.text)) entries.push(entry);
    }
    const [key, way] = { highest: ["score", -1], lowest: ["score", 1], gain: ["gap", -1], loss: ["gap", 1] }[asked.sort] || [];
    if (!key) return entries;
    const known = entries.filter((entry) => entry[key] !== null).sort((a, b) => way * (a[key] - b[key]));
    return [...known, ...entries.filter((entry) => entry[key] === null)];
  }

  function element(name, css, text) {
    const made = document.createElement(name);
    if (css) made.className = css;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function shown(number, sign) {
    const text = number.toFixed(2);
    const plain = Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
    return sign && Number(text) > 0 ? `+${plain}` : plain;
  }

  function numbersOf(answer, left) {
    const [, , , , rewards, words, kl, wins] = answer;
    const parts = data.objectives.map((name, index) => {
      const than = left.length ? ` (${shown(rewards[index] - mean(left, index), true)})` : "";
      return `${name} ${shown(rewards[index])}${than}`;
    });
    parts.push(`${words} ${words === 1 ? "word" : "words"}`, `KL ${shown(kl)}`);
    if (wins !== null) parts.push(`preferred ${Math.round(100 * wins)} %`);
    return parts.join(" · ");
  }

  // answers of one method as a card; `left` are those that it is compared with, none for the left one itself
  function card(method, asked, answers, left) {
    const made = element("section", "text");
    const at = answers.length ? data.points[answers[0][2]] : data.points[asked];
    made.append(element("b", "", `${data.methods[method]}${at ? ` at ${at}` : ", one answer for all weights"}`));
    if (!answers.length) made.append(element("p", "note", "no answer at this weight"));
    for (const answer of answers) {
      for (const mark of answer[8]) made.append(element("span", "badge", mark));
      made.append(element("div", "rewards", numbersOf(answer, left)));
      made.append(element("div", "body", data.texts[answer[3]] || "(empty)"));
    }
    return made;
  }

  function article(entry, asked) {
    const made = element("article", "example");
    made.append(element("div", "prompt", data.prompts[entry.prompt]));
    const texts = element("div", "texts");
    texts.append(card(asked.left, asked.leftPoint, entry.left, []));
    for (const [method, answers] of entry.right) texts.append(card(method, asked.rightPoint, answers, entry.left));
    made.append(texts);
    return made;
  }

  function render() {
    const asked = read();
    const entries = chosen(asked);
    const pages = Math.max(1, Math.ceil(entries.length / PER_PAGE));
    page = Math.min(Math.max(0, page), pages - 1);
    list.replaceChildren(...entries.slice(page * PER_PAGE, (page + 1) * PER_PAGE).map((entry) => article(entry, asked)));
    find("status").textContent = `${entries.length} of ${data.prompts.length} prompts, page ${page + 1} of ${pages}`;
    for (const button of document.querySelectorAll("[data-step]")) {
      const next = page + Number(button.dataset.step);
      button.disabled = next < 0 || next >= pages;
    }
  }

  function step(by) {
    page += by;
    render();
    find("status").scrollIntoView({ block: "nearest" });
  }

  function startOver() {
    page = 0;
    render();
  }

  let timer = 0;
  for (const name of controls) {
    const typed = ["least", "most", "text"].includes(name);
    find(name).addEventListener(typed ? "input" : "change", () => {
      clearTimeout(timer);
      timer = setTimeout(startOver, typed ? WAIT : 0);
    });
  }
  for (const button of document.querySelectorAll("[data-step]")) {
    button.addEventListener("click", () => step(Number(button.dataset.step)));
  }
  document.addEventListener("keydown", (event) => {
    const typing = ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName);
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") {
      event.preventDefault();
      find("text").focus();
    } else if (event.key === "n" || event.key === "p") {
      step(event.key === "n" ? 1 : -1);
    }
  });
  render();
})();
