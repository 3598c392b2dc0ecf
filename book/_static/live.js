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

  /* The critical rate of gradients that are k updates old, over that of fresh ones. */
  const late = (k) => Math.sin(Math.PI / (4 * k + 2));

  function calculator(figure) {
    frame(figure, "learning-rate calculator");
    const [rateRow, rate] = field("your learning rate", { min: 1e-12, max: 1e6, step: "any", value: 1e-6 });
    const [rewardRow, reward] = choice("what is right", [["every", "every token must be right"],
      ["count", "the reward counts tokens"], ["own", "every token, own parameters each"]]);
    const side = (title, estimatorValue) => {
      const [estimatorRow, estimator] = choice("estimator", [["rloo", "REINFORCE or RLOO"], ["dr_grpo", "Dr. GRPO"],
        ["grpo", "GRPO, population"], ["grpo_sample", "GRPO, TRL's sample"]]);
      estimator.value = estimatorValue;
      const [successRow, success] = field("success rate J", { min: 0.001, max: 0.999, step: "any", value: 0.5 });
      const [sizeRow, size] = field("group size G", { min: 2, max: 4096, step: 1, value: 8 });
      const [lengthRow, length] = field("tokens T", { min: 1, max: 1000000, step: 1, value: 256 });
      const [delayRow, delay] = field("updates of delay k", { min: 0, max: 1000, step: 1, value: 0 });
      const divided = make("input", { type: "checkbox" });
      const dividedRow = make("label", {}, "divided by the length", divided);
      const set = make("fieldset", {}, make("legend", {}, title), estimatorRow, successRow, sizeRow, lengthRow, delayRow, dividedRow);
      return { set, estimator, success, size, length, delay, divided };
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

    const read = ({ estimator, success, size, length, delay, divided }) =>
      ({ estimator: estimator.value, J: +success.value, G: +size.value, T: +length.value, k: +delay.value, divided: divided.checked });
    const controls = [rate, reward, kept, ...[from, to].flatMap((s) => [s.estimator, s.success, s.size, s.length, s.delay, s.divided])];
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
        ["the delay of the rollouts (near a maximum, without importance weights)", late(b.k) / late(a.k)],
        ["division by the length", (b.divided ? b.T : 1) / (a.divided ? a.T : 1)],
      ];
      const factor = parts.reduce((product, [, part]) => product * part, 1);
      said.textContent = `Set ${shown(rate.value * factor)}, which is ${shown(factor)} times your rate` +
        `${follows ? `, at a success of ${shown(b.J)}` : ""}.`;
      lines.append(...parts.map(([name, part]) => make("li", {}, `${name}: × ${shown(part)}`)));
    });
  }

  // Pictures: a frame with ticks, redrawn when its width changes

  const word = (x, y, text, anchor = "middle") => make("text", { x, y, "text-anchor": anchor, fill: "currentColor" }, text);
  const rule = (xa, ya, xb, yb, more = {}) =>
    make("line", { x1: xa, y1: ya, x2: xb, y2: yb, stroke: "currentColor", "stroke-opacity": 0.2, ...more });
  const curve = (points, more = {}) => make("path", {
    d: points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join(""),
    fill: "none", stroke: "currentColor", "stroke-width": 2.5, ...more });
  const spot = (x, y) => make("circle", { cx: x, cy: y, r: 6, fill: "currentColor" });
  const sheet = () => make("svg", { role: "img", height: 260 });

  /* Empties the picture and draws ticks; the axes map to pixels, from [low, high, ticks, title, logarithmic]. */
  function axes(plot, x, y) {
    const width = Math.max(280, plot.clientWidth || 640), height = 260;
    const left = 48, right = width - 14, bottom = height - 42, top = 24;
    const along = ([low, high, , , log], start, end) => {
      const f = log ? Math.log : (v) => v;
      return (v) => start + ((f(v) - f(low)) / (f(high) - f(low))) * (end - start);
    };
    const px = along(x, left, right), py = along(y, bottom, top);
    plot.setAttribute("viewBox", `0 0 ${width} ${height}`);
    plot.replaceChildren(
      ...x[2].flatMap((v) => [rule(px(v), bottom, px(v), top), word(px(v), bottom + 17, v)]),
      ...y[2].flatMap((v) => [rule(left, py(v), right, py(v)), word(left - 6, py(v) + 4, v, "end")]),
      word((left + right) / 2, height - 6, x[3]), word(4, 14, y[3], "start"));
    return [px, py];
  }

  function redraw(figure, plot, run) {
    let seen = plot.clientWidth;
    new ResizeObserver(() => plot.clientWidth !== seen && ((seen = plot.clientWidth), run())).observe(figure);
  }

  const between = (low, high, n = 200) => Array.from({ length: n + 1 }, (_, i) => low + ((high - low) * i) / n);

  // Baseline map with your run's point

  function baseline(figure) {
    frame(figure, "which baseline is cheaper at your success rate and energy ratio");
    const [successRow, success] = field("success rate J", { min: 0.01, max: 0.99, step: "any", value: 0.75 });
    const [ratioRow, ratio] = field("energy ratio x", { min: 0.01, max: 10000, step: "any", value: 17 });
    const plot = sheet(), said = answer();
    figure.replaceChildren(successRow, ratioRow, plot, said, note("A price is the second moment of one response's term over " +
      "the least that any baseline has; b* is the baseline that has it. Above the line the zero baseline is the cheaper one."));
    const run = follow([success, ratio], said, () => {
      const J = +success.value, x = +ratio.value, edge = 1 + 1 / (1 - J), best = J / (J + (1 - J) * x);
      const mean = 1 + (J * (1 - J) * (x - 1) ** 2) / x, zero = 1 + J / ((1 - J) * x);
      const [px, py] = axes(plot, [0, 1, [0, 0.25, 0.5, 0.75, 1], "success rate J", false],
        [Math.min(0.1, x / 2), Math.max(200, 2 * x), [0.1, 1, 10, 100], "energy ratio x, wrong over right", true]);
      const line = between(0, 0.994).map((j) => [px(j), py(1 + 1 / (1 - j))]);
      plot.append(curve(line), word(px(0.03), py(30), "zero is cheaper", "start"), word(px(0.97), py(0.3), "mean is cheaper", "end"),
        rule(px(J), py(x), px(J), py(edge), { "stroke-opacity": 0.8, "stroke-dasharray": "4 4" }), spot(px(J), py(x)));
      said.textContent = `${x > edge ? "The zero baseline is cheaper" : x < edge ? "The mean is cheaper" : "Mean and zero cost the same"}, ` +
        `because your ratio is ${shown(x)} and the boundary ${shown(edge)}: ` +
        `the mean costs ${shown(mean)}, zero ${shown(zero)} times the least, which b* = ${shown(best)} has.`;
      plot.setAttribute("aria-label", said.textContent);
    });
    redraw(figure, plot, run);
  }

  // Relay nomogram

  /* The chance that a group of G responses has a right and a wrong one. */
  const split = (P, G) => 1 - P ** G - (1 - P) ** G;

  function relay(figure) {
    frame(figure, "chance of a signal at the next level");
    const [successRow, success] = field("success at this level", { min: 0.001, max: 0.999, step: "any", value: 0.8 });
    const [chanceRow, chance] = field("success of a blind guess", { min: 0, max: 0.99, step: "any", value: 0 });
    const [ratioRow, ratio] = field("ratio R of the next level to this one", { min: 1, max: 1000, step: "any", value: 9 });
    const [sizeRow, size] = field("group size G", { min: 2, max: 4096, step: 1, value: 8 });
    const [promptsRow, prompts] = field("prompts a batch", { min: 1, max: 100000, step: 1, value: 16 });
    const plot = sheet(), said = answer();
    figure.replaceChildren(successRow, chanceRow, ratioRow, sizeRow, promptsRow, plot, said,
      note("All prompts alike, a linear head in a fixed context, so that y becomes y to the power R. A signal is a group with " +
        "a right and a wrong answer; with blind guesses at work there is a signal also where y is zero, and it teaches little."));
    const run = follow([success, chance, ratio, size, prompts], said, () => {
      const c = +chance.value, P = +success.value, R = +ratio.value, G = +size.value, n = +prompts.value;
      if (P <= c) {
        said.textContent = "Success is not above that of a blind guess, so nothing follows for the next level.";
        return;
      }
      const at = (p) => ((p - c) / (1 - c)) ** R, pass = (y) => c + (1 - c) * y;
      const some = (p) => -Math.expm1(n * Math.log1p(-split(pass(at(p)), G)));
      const y = (P - c) / (1 - c), next = at(P), group = split(pass(next), G);
      const [px, py] = axes(plot, [0, 1, [0, 0.25, 0.5, 0.75, 1], "success at this level", false],
        [0, 1, [0, 0.5, 1], "chance", false]);
      const grid = between(c + 1e-6, 1 - 1e-6);
      const one = grid.map((p) => [px(p), py(split(pass(at(p)), G))]), any = grid.map((p) => [px(p), py(some(p))]);
      plot.append(curve(one), curve(any, { "stroke-dasharray": "7 4" }),
        rule(px(P), py(0), px(P), py(1), { "stroke-opacity": 0.8, "stroke-dasharray": "2 3" }), spot(px(P), py(group)),
        word(px(1), 14, "one group: line, some group: dashes", "end"));
      said.textContent = `Above chance success is ${shown(y)} here and ${shown(next)} at ${shown(R)} times the level: ` +
        `one group has a signal with a chance of ${shown(group)}, some group of a batch with ${shown(some(P))}. ` +
        `A next success above chance of a tenth needs a ratio of at most ${shown(Math.log(0.1) / Math.log(y))}.`;
      plot.setAttribute("aria-label", said.textContent);
    });
    redraw(figure, plot, run);
  }

  // Step along the line with its parabola: three answers with logits 0, ln e + x and ln e - x, of which the first is right

  const PEAK = 0.9; // success at x = 0
  const weight = (1 / PEAK - 1) / 2;
  const total = (x) => 1 + 2 * weight * Math.cosh(x);

  function parabola(figure) {
    frame(figure, "success along a step, and its local parabola");
    const slider = (name, options) => {
      const input = make("input", { type: "range", ...options }), value = make("output");
      return [make("label", {}, name, input, value), input, value];
    };
    const [startRow, start, startValue] = slider("start x", { min: -3, max: -0.2, step: 0.1, value: -2 });
    const [stepRow, step, stepValue] = slider("length of the step", { min: 0, max: 7, step: 0.1, value: 1.5 });
    const plot = sheet(), said = answer();
    figure.replaceChildren(startRow, stepRow, plot, said, note("A softmax over three answers on one parameter x: the right one has " +
      "a logit of 0, the wrong ones gain x and lose x, and success is 0.9 at best. The parabola is that of log J at the start; " +
      "its top is at half of the predicted critical step, and it is back at the start's height at the whole."));
    const run = follow([start, step], said, () => {
      const x = +start.value, h = +step.value, J = (u) => 1 / total(u), here = J(x);
      const slope = (-2 * weight * Math.sinh(x)) / total(x);
      const bend = (2 * weight * (Math.cosh(x) + 2 * weight)) / total(x) ** 2;
      const local = (s) => here * Math.exp(slope * s - (bend * s * s) / 2);
      const predicted = (2 * slope) / bend, exact = -2 * x, after = J(x + h);
      startValue.textContent = x.toFixed(1);
      stepValue.textContent = h.toFixed(1);
      const [px, py] = axes(plot, [0, 7, [0, 1, 2, 3, 4, 5, 6, 7], "length of the step", false], [0, 1, [0, 0.5, 1], "success J", false]);
      const grid = between(0, 7);
      const inside = grid.filter((s) => local(s) <= 1);
      plot.append(rule(px(0), py(here), px(7), py(here), { "stroke-opacity": 0.6, "stroke-dasharray": "2 3" }),
        curve(grid.map((s) => [px(s), py(J(x + s))])),
        curve(inside.map((s) => [px(s), py(local(s))]), { "stroke-dasharray": "7 4", "stroke-width": 2 }));
      for (const s of [predicted / 2, predicted])
        if (s <= 7) plot.append(rule(px(s), py(0), px(s), py(1), { "stroke-opacity": 0.7, "stroke-dasharray": "4 4" }));
      plot.append(spot(px(h), py(after)), word(px(7), 14, "success: line, parabola: dashes", "end"));
      const verdict = after > here + 1e-12 ? "raises" : after < here - 1e-12 ? "lowers" : "leaves";
      said.textContent = `A step of ${shown(h)} ${verdict} success ${verdict === "leaves" ? "at" : `from ${shown(here)} to`} ${shown(after)}, ` +
        `where the parabola says ${shown(local(h))}. The critical step is ${shown(exact)}, predicted ${shown(predicted)}, ` +
        `and half of the prediction is ${shown(predicted / 2)}.`;
      plot.setAttribute("aria-label", said.textContent);
    });
    redraw(figure, plot, run);
  }

  const FIGURES = { calculator, baseline, relay, parabola };
  const all = () => document.querySelectorAll(".rlvr-live").forEach((figure) => FIGURES[figure.dataset.live](figure));
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", all);
  else all();
})();
