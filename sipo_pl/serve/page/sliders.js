// One slider per objective; moving one scales the others.

export function makeSliders(place, objectives, weights) {
  const rows = objectives.map((objective, index) => {
    const row = document.createElement("div");
    row.className = "slider";
    const label = document.createElement("label");
    label.htmlFor = `weight-${index}`;
    label.textContent = objective.name;
    if (objective.phrase) {
      const phrase = document.createElement("span");
      phrase.className = "phrase";
      phrase.textContent = ` ${objective.phrase}`;
      label.append(phrase);
    }
    const input = document.createElement("input");
    Object.assign(input, { id: label.htmlFor, type: "range", min: 0, max: 1, step: 0.01 });
    input.addEventListener("input", () => weights.setOne(index, Number(input.value)));
    const output = document.createElement("output");
    output.htmlFor = input.id;
    row.append(label, input, output);
    place.append(row);
    return { input, output };
  });
  const show = () => weights.values.forEach((value, index) => {
    rows[index].input.value = value;
    rows[index].output.textContent = value.toFixed(2);
  });
  weights.addEventListener("change", show);
  show();
}
