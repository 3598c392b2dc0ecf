/* Interactive figures of the practical pages, placed by the directive "live": <div class="rlvr-live" data-figure="NAME">.
   What the div holds is shown where this script does not run. No network, no kernel; formulas as in rlvr_lib. */
(() => {
  // Elements, and rows of labelled native inputs.
  function make(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }
  const wide = "display:flex;flex-wrap:wrap;gap:.3em .8em;align-items:center;margin:.35em 0";
  const box = "flex:0 1 7em;min-width:5em;color:inherit;background:transparent;border:1px solid #888;border-radius:4px;padding:.25em";

  function number(name, options, label = name) {
    const input = make("input", { type: "number", "data-name": name, style: box, inputmode: "decimal", ...options });
    return [make("label", { style: wide }, label, input), input];
  }

  function choice(name, options, label = name) {
    const input = make("select", { "data-name": name, style: `${box};flex:0 1 auto;max-width:100%` });
    for (const [value, text] of options) input.append(make("option", { value, style: "color:black;background:white" }, text));
    return [make("label", { style: wide }, label, input), input];
  }

  function frame(figure, title) {
    figure.setAttribute("role", "group");
    figure.setAttribute("aria-label", title);
    Object.assign(figure.style, {
      border: "1px solid #8888", borderRadius: "6px", padding: "10px", maxWidth: "704px", margin: "0 0 1.5rem", display: "block",
    });
    return make("p", { "aria-live": "polite", style: "margin:.5em 0 0;min-height:3em" });
  }

  const short = (x) => (x === 0 ? "0" : +Math.abs(x) >= 1e-3 && Math.abs(x) < 1e4 ? `${+x.toPrecision(3)}` : x.toExponential(2));
  const inside = (x, low, high) => Number.isFinite(x) && x > low && x < high;

  // Theory: the gain of a group's mean update (I6), and the curvature of log J at the best success of a reward (2c).
  function gain(kind, J, G) {
    const variance = J * (1 - J);
    if (kind === "rloo") return variance;
    if (kind === "dr_grpo") return (1 - 1 / G) * variance;
    let total = 0, logChoose = 0;
    for (let k = 1; k < G; k++) {
      logChoose += Math.log((G - k + 1) / k);
      total += Math.exp(logChoose + k * Math.log(J) + (G - k) * Math.log1p(-J)) * Math.sqrt(k * (G - k)) / G;
    }
    return kind === "grpo_trl" ? total * Math.sqrt((G - 1) / G) : total;
  }

  function insideWindow(d) { // P(|Z| < d) of a standard normal Z, by a series of positive terms
    let term = d, sum = d;
    for (let n = 1; term > 1e-17 * sum; n++) sum += (term *= (d * d) / (2 * n + 1));
    return sum * Math.sqrt(2 / Math.PI) * Math.exp(-d * d / 2);
  }

  function curvature(reward, T, J) {
    const wrong = -Math.expm1(Math.log(J) / T);
    if (reward === "own") return wrong;
    if (reward !== "count") return T * wrong;
    let low = 0, high = 9;
    for (let n = 0; n < 80; n++) (insideWindow((low + high) / 2) < J ? (low = (low + high) / 2) : (high = (low + high) / 2));
    return (T / 2) * low * Math.exp(-low * low / 2) / Math.sqrt(2 * Math.PI) / J;
  }

  function calculator(figure) {
    const delayed = "delay" in figure.dataset;
    const estimators = [["rloo", "REINFORCE with a baseline, RLOO"], ["dr_grpo", "Dr. GRPO (no deviation)"],
      ["grpo", "GRPO, population deviation"], ["grpo_trl", "GRPO, sample deviation (TRL)"]];
    const controls = {}, said = frame(figure, "Learning-rate calculator");
    const field = ([label, input]) => ((controls[input.dataset.name] = input), label);
    const side = (which, title, estimator, G, J, T) => {
      const set = make("fieldset", { style: "flex:1 1 16em;min-width:0;border:1px solid #8888;border-radius:6px;padding:.3em .7em;margin:0" },
        make("legend", { style: "font-size:1em;font-weight:bold;width:auto;margin:0;padding:0 .3em;float:none" }, title),
        field(choice(`${which}-estimator`, estimators, "estimator")),
        field(number(`${which}-group`, { min: 2, max: 4096, step: 1, value: G }, "group size G")),
        field(number(`${which}-success`, { min: 0.001, max: 0.999, step: "any", value: J }, "success rate J")),
        field(number(`${which}-length`, { min: 1, max: 1e6, step: 1, value: T }, "tokens a response T")),
        field(choice(`${which}-divided`, [["no", "no"], ["yes", "yes"]], "divided by the length")));
      controls[`${which}-estimator`].value = estimator;
      return set;
    };
    const table = make("tbody");
    figure.replaceChildren(
      field(number("rate", { min: 0, step: "any", value: "1e-6" }, "your learning rate")),
      make("div", { style: "display:flex;flex-wrap:wrap;gap:.6em" },
        side("old", "your run", "rloo", 8, 0.5, 256), side("new", "what you change to", "grpo_trl", 8, 0.5, 512)),
      field(choice("reward", [["count", "a count of tokens lies in a window"], ["every", "all tokens right, shared parameters, your J"],
        ["error", "all tokens right, shared parameters, same token error"], ["own", "all tokens right, own parameters a token, your J"]],
      "what the reward asks for")),
      ...(delayed ? [field(number("delay", { min: 0, max: 1000, step: 1, value: 0 }, "updates of delay k"))] : []),
      said,
      make("table", { style: "margin:.4em 0;width:100%" }, make("thead", {}, make("tr", {},
        make("th", { scope: "col" }, "what moves it"), make("th", { scope: "col" }, "factor"))), table),
      make("p", { style: "margin:.3em 0 0;font-size:.9em" },
        "A ratio for plain gradient steps without noise, at the best success of three small models; Adam, clipping and batches of prompts are not in it. Use it to convert a rate that works, never to find one."));

    function draw() {
      const value = (name) => +controls[name].value, text = (name) => controls[name].value;
      const [G0, G1, J0, T0, T1] = ["old-group", "new-group", "old-success", "old-length", "new-length"].map(value);
      const same = text("reward") === "error", reward = text("reward");
      controls["new-success"].disabled = same;
      const J1 = same ? J0 ** (T1 / T0) : value("new-success"), k = delayed ? value("delay") : 0;
      const whole = [G0, G1, T0, T1].every(Number.isInteger);
      const wrong = !(value("rate") > 0) ? "your learning rate must be positive"
        : !whole || G0 < 2 || G1 < 2 || G0 > 4096 || G1 > 4096 ? "group sizes are whole numbers from 2 to 4096, and lengths whole"
          : T0 < 1 || T1 < 1 ? "a response has at least one token"
            : !inside(J0, 0, 1) || !inside(value("new-success"), 0, 1) ? "a success rate lies strictly between 0 and 1"
              : !(J1 > 1e-300) ? "at that length no success is left"
                : !Number.isInteger(k) || k < 0 ? "a delay is a whole number of updates" : "";
      table.replaceChildren();
      if (wrong) return void (said.textContent = `No rate: ${wrong}.`);
      const old = text("old-estimator"), now = text("new-estimator");
      const rate = (J, T) => (1 - J) / (gain(now, J, G1) * curvature(reward, T, J)); // 2c, up to the constant 2
      const tokens = (which, T) => (text(`${which}-divided`) === "yes" ? T : 1);
      const success = same ? 1 : rate(J1, T0) / rate(J0, T0);
      const length = same ? rate(J1, T1) / rate(J0, T0) : rate(J1, T1) / rate(J1, T0);
      const rows = [
        ["estimator and group size: ratio of the gains at the present success", gain(old, J0, G0) / gain(now, J0, G1)],
        ["success rate: 2 (1 − J) over gain times curvature", success],
        [same ? "length: curvature, and the success that falls with it" : "length: curvature of log J", length],
        ["division by the length", tokens("new", T1) / tokens("old", T0)],
        ...(delayed ? [["delay: sin(π / (4k + 2)), derived", Math.sin(Math.PI / (4 * k + 2))]] : [])];
      const factor = rows.reduce((product, row) => product * row[1], 1);
      for (const [name, times] of rows)
        table.append(make("tr", {}, make("td", {}, name), make("td", { "data-factor": times }, `× ${short(times)}`)));
      const [name, most] = rows.reduce((a, b) => (Math.abs(Math.log(b[1])) > Math.abs(Math.log(a[1])) ? b : a));
      said.replaceChildren(make("strong", { "data-rate": value("rate") * factor }, `New rate ${short(value("rate") * factor)}`),
        `, which is ${short(factor)} times yours. `,
        Math.abs(Math.log(most)) < 1e-9 ? "Nothing that you changed moves it." : `Most comes from ${name.split(":")[0]}, × ${short(most)}.`,
        same ? ` Success at the new length is ${short(J1)}.` : "");
    }
    for (const control of Object.values(controls)) control.addEventListener("input", draw);
    draw();
  }

  const figures = { calculator };
  document.querySelectorAll(".rlvr-live").forEach((figure) => figures[figure.dataset.figure](figure));
})();
