// The chosen weights: a point on the simplex, in hundredths, so that what is shown is what is asked for.

const WHOLE = 100;

export class Weights extends EventTarget {
  constructor(start) {
    super();
    this.parts = rounded(start);
  }

  get values() {
    return this.parts.map((part) => part / WHOLE);
  }

  set(values) {
    this.parts = rounded(values);
    this.dispatchEvent(new Event("change"));
  }

  // One weight is given; the others keep their proportions.
  setOne(index, value) {
    const rest = this.parts.reduce((sum, part, at) => (at === index ? sum : sum + part), 0);
    const others = this.parts.length - 1;
    this.set(this.parts.map((part, at) => {
      if (at === index) return value;
      return (1 - value) * (rest > 0 ? part / rest : 1 / others);
    }), index);
  }
}

// Whole hundredths that sum to one: the largest remainders get what is left.
function rounded(values) {
  const exact = values.map((value) => Math.max(0, value) * WHOLE);
  const parts = exact.map((value) => Math.floor(value + 1e-9));
  const order = exact.map((value, at) => at).sort((a, b) => exact[b] - parts[b] - (exact[a] - parts[a]) || a - b);
  for (let at = 0, left = WHOLE - parts.reduce((a, b) => a + b, 0); left > 0; left -= 1, at += 1) {
    parts[order[at % order.length]] += 1;
  }
  return parts;
}
