/* Interactive figures of the practical pages: <div class="rlvr-live" data-live="KIND">, see book/_ext/live.py.
   The formulas are those of rlvr_lib.theory, and tests/book/test_live.py compares them. No network, no kernel. */
(() => {
  const SVG = ["svg", "g", "line", "path", "circle", "text"];

  function make(tag, attributes = {}, ...children) {
    const node = SVG.includes(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }

  function field(name, options) {
    const input = make("input", { type: "number", required: "", ...options });
    return [make("label", {}, name, input), input];
  }

  function choice(name, options) {
    const select = make("select");
    for (const [value, text] of options) select.append(make("option", { value }, text));
    return [make("label", {}, name, select), select];
  }

  const shown = (x) => (x === 0 ? "0" : Math.abs(x) < 1e-3 || Math.abs(x) >= 1e5 ? x.toExponential(2) : `${+x.toPrecision(4)}`);
  const answer = () => make("p", { "aria-live": "polite" });
  const note = (text) => make("p", { class: "rlvr-note" }, text);

  function frame(figure, name) {
    figure.setAttribute("role", "group");
    figure.setAttribute("aria-label", `Interactive figure: ${name}`);
  }

  /* Calls draw now and whenever a control changes; says what is wrong with an entry that is out of range. */
  function follow(controls, said, draw) {
    const run = () => {
      const wrong = controls.find((control) => !control.disabled && !control.checkValidity());
      if (wrong) said.textContent = `${wrong.parentNode.firstChild.textContent}: ${wrong.validationMessage}`;
      else draw();
    };
    for (const control of controls) control.addEventListener("input", run);
    run();
    return run;
  }

  // Learning-rate calculator

  /* The mean update is this times the gradient gap, as power_gain has it: G responses a group. */
  function gain(estimator, J, G) {
    const variance = J * (1 - J);
    if (estimator === "rloo") return variance;
    if (estimator === "dr_grpo") return (1 - 1 / G) * variance;
    let total = 0, logChoose = 0;
    for (let k = 1; k < G; k++) {
      logChoose += Math.log((G - k + 1) / k);
      total += Math.exp(logChoose + k * Math.log(J) + (G - k) * Math.log1p(-J)) * Math.sqrt((k * (G - k)) / G ** 2);
    }
    return total * (estimator === "grpo_sample" ? Math.sqrt((G - 1) / G) : 1);
  }

  /* z phi(z) / J with J = P(|Z| < z), by the series of the normal distribution's integral and bisection. */
  function bell(J) {
    const density = (z) => Math.exp((-z * z) / 2) / Math.sqrt(2 * Math.PI);
    const inside = (z) => {
      let term = z, sum = z;
      for (let n = 3; term > 1e-17 * sum; n += 2) sum += term *= (z * z) / n;
      return 2 * density(z) * sum;
    };
    let low = 0, high = 8;
    for (let i = 0; i < 60; i++) {
      const middle = (low + high) / 2;
      if (inside(middle) < J) low = middle;
      else high = middle;
    }
    return (low * density(low)) / J;
  }

  /* Curvature of log J at its maximum J, T tokens a response. */
  function curvature(reward, T, J) {
    if (reward === "count") return (T / 2) * bell(J);
    const wrong = -Math.expm1(Math.log(J) / T);
    return reward === "own" ? wrong : T * wrong;
  }

  function calculator(figure) {
    frame(figure, "learning-rate calculator");
    const [rateRow, rate] = field("your learning rate", { min: 1e-12, max: 1e6, step: "any", value: 1e-6 });
    const [rewardRow, reward] = choice("what is right", [["every", "every token must be right"],
      ["count", "the reward counts tokens"], ["own", "every token, own parameters each"]]);
    const side = (title, estimatorValue) => {
      const [estimatorRow, estimator] = choice("estimator", [["rloo", "REINFORCE or RLOO"], ["dr_grpo", "Dr. GRPO"],
        ["grpo", "GRPO, population deviation"], ["grpo_sample", "GRPO as in TRL, sample deviation"]]);
      estimator.value = estimatorValue;
      const [successRow, success] = field("success rate J", { min: 0.001, max: 0.999, step: "any", value: 0.5 });
      const [sizeRow, size] = field("group size G", { min: 2, max: 4096, step: 1, value: 8 });
      const [lengthRow, length] = field("tokens T", { min: 1, max: 1000000, step: 1, value: 256 });
      const divided = make("input", { type: "checkbox" });
      const dividedRow = make("label", {}, "divided by the length", divided);
      const set = make("fieldset", {}, make("legend", {}, title), estimatorRow, successRow, sizeRow, lengthRow, dividedRow);
      return { set, estimator, success, size, length, divided };
    };
    const from = side("from", "rloo"), to = side("to", "grpo_sample");
    const kept = make("input", { type: "checkbox" });
    const keptRow = make("label", {}, "same token error: success follows the length", kept);
    to.set.append(keptRow);
    const said = answer(), lines = make("ul");
    figure.replaceChildren(rateRow, rewardRow, make("div", { class: "rlvr-sides" }, from.set, to.set), said, lines,
      note("The ratio of two critical rates at a maximum of success, each of plain gradient steps along the mean update of one " +
        "prompt; where only the estimator and the group size change it keeps the mean step at this success. " +
        "A ratio only: it does not say that your rate was a good one, and Adam divides a constant factor out."));

    const read = ({ estimator, success, size, length, divided }) =>
      ({ estimator: estimator.value, J: +success.value, G: +size.value, T: +length.value, divided: divided.checked });
    const controls = [rate, reward, kept, ...[from, to].flatMap((s) => [s.estimator, s.success, s.size, s.length, s.divided])];
    follow(controls, said, () => {
      const follows = kept.checked && reward.value !== "count";
      kept.disabled = reward.value === "count";
      to.success.disabled = follows;
      const a = read(from), b = read(to);
      if (follows) {
        b.J = a.J ** (b.T / a.T);
        to.success.value = shown(b.J);
      }
      lines.replaceChildren();
      if (!(b.J > 1e-9 && b.J < 1 - 1e-9)) {
        said.textContent = "At this length and the same token error success is too close to zero or one for a rate.";
        return;
      }
      const parts = [
        ["the gain of the mean update (estimator, group size, success; identity 6)", gain(a.estimator, a.J, a.G) / gain(b.estimator, b.J, b.G)],
        ["the failure rate left (theorem 2)", (1 - b.J) / (1 - a.J)],
        ["the curvature of log J (length and success; theorem 2)", curvature(reward.value, a.T, a.J) / curvature(reward.value, b.T, b.J)],
        ["division by the length", (b.divided ? b.T : 1) / (a.divided ? a.T : 1)],
      ];
      const factor = parts.reduce((product, [, part]) => product * part, 1);
      said.textContent = `Set ${shown(rate.value * factor)}, which is ${shown(factor)} times your rate` +
        `${follows ? `, at a success of ${shown(b.J)}` : ""}.`;
      lines.append(...parts.map(([name, part]) => make("li", {}, `${name}: × ${shown(part)}`)));
    });
  }

  const FIGURES = { calculator };
  const all = () => document.querySelectorAll(".rlvr-live").forEach((figure) => FIGURES[figure.dataset.live](figure));
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", all);
  else all();
})();
