// The page: weights on one side, prompt and answers on the other.

import { addAnswer } from "./answers.js";
import { makeFront } from "./front.js";
import { Refused, ask, readFront, useKey } from "./server.js";
import { makeSliders } from "./sliders.js";
import { makeTriangle } from "./triangle.js";
import { Weights } from "./weights.js";

const part = (name) => document.getElementById(name);
const say = (text) => { part("status").textContent = text; };

async function begin() {
  let told;
  try {
    told = await readFront();
  } catch (error) {
    part("key").hidden = error.status !== 401;
    say(error.status === 401 ? "" : error.message);
    if (error.status === 401) part("secret").focus();
    return;
  }
  part("key").hidden = true;
  part("model").textContent = told.model;
  document.title = `${told.model}: sipo_pl`;
  const weights = new Weights(told.weights);
  if (told.objectives.length === 3) makeTriangle(part("triangle"), told.objectives, weights);
  makeSliders(part("sliders"), told.objectives, weights);
  makeFront(part("front"), part("front-note"), told, weights);
  listen(told, weights);
  part("prompt").focus();
}

function listen(told, weights) {
  let running = null;
  const answer = async () => {
    const prompt = part("prompt").value.trim();
    if (running || !prompt) return;
    running = new AbortController();
    part("send").disabled = true;
    part("stop").disabled = false;
    say("");
    const card = addAnswer(part("answers"), prompt, told.objectives, weights.values);
    await follow(card, running.signal, {
      model: told.model,
      weights: weights.values,
      messages: [{ role: "user", content: prompt }],
      max_tokens: Number(part("tokens").value),
      temperature: Number(part("temperature").value),
      stream_options: { include_usage: true },
    });
    running = null;
    part("send").disabled = false;
    part("stop").disabled = true;
  };
  part("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    answer();
  });
  part("stop").addEventListener("click", () => running?.abort());
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") running?.abort();
    if (event.key === "Enter" && event.ctrlKey) part("ask").requestSubmit();
  });
}

async function follow(card, signal, body) {
  let reason = "failed", tokens;
  try {
    for await (const chunk of ask(body, signal)) {
      for (const choice of chunk.choices) {
        if (choice.delta.content) card.push(choice.delta.content);
        reason = choice.finish_reason ?? reason;
      }
      tokens = chunk.usage?.completion_tokens ?? tokens;
    }
  } catch (error) {
    if (error.name === "AbortError") reason = "stopped";
    else say(error instanceof Refused ? error.message : `the server cannot be reached: ${error.message}`);
  }
  card.end(reason, tokens);
}

part("key").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(part("secret").value);
  begin();
});
begin();
