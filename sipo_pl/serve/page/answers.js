// The answers, the newest on top, each with the weights that it was asked at.

const ENDED = { stop: "", length: "cut at the longest answer", stopped: "stopped", failed: "broke off" };

export function addAnswer(place, prompt, objectives, values) {
  const text = part("text live");
  const told = part("told");
  const badge = document.createElement("span");
  badge.className = "badge";
  badge.textContent = objectives.map((objective, index) => `${objective.name} ${values[index].toFixed(2)}`).join(" · ");
  const state = document.createElement("span");
  told.append(badge, " ", state);
  const asked = part("asked", prompt);
  const card = document.createElement("article");
  card.className = "answer";
  card.append(asked, text, told);
  place.prepend(card);
  text.setAttribute("aria-live", "polite");
  return {
    push(piece) {
      text.append(piece);
    },
    end(reason, tokens) {
      text.classList.remove("live");
      const count = tokens === undefined ? "" : `${tokens} tokens`;
      state.textContent = [count, ENDED[reason] ?? reason].filter(Boolean).join(", ");
    },
  };
}

function part(name, text = "") {
  const element = document.createElement("div");
  element.className = name;
  element.textContent = text;
  return element;
}
