/* Move it yourself: how the critical learning rate depends on the length of the responses, for four kinds of reward.
   <div class="rlvr-critical-rate" data-levels="[success rates]" data-bell="[curvature of the counting reward over T]">
   What the div holds is shown where this script does not run. No library, no network, no kernel. */
(() => {
  const FIRST = 2, LAST = 13; // lengths are 2^FIRST to 2^LAST tokens
  const LEAST = 1e-3; // a line ends where success falls below this
  const REWARDS = [
    ["counting reward", "#0b84c6", ""],
    ["same success", "#c97b00", "7 4"],
    ["same token error", "#0a9a72", "2 3"],
    ["own parameters", "#c765b4", "10 3 2 3"],
  ];
  const power = (v) => (v < -2 || v > 2 ? `10${[...`${v}`].map((c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c])).join("")}`
    : v < 0 ? `1/${10 ** -v}` : `${10 ** v}`);

  // The predicted rate 2 (1 - J) / (gain curvature) at the maximum of each reward; the third keeps the error of T0.
  function rates(T, T0, J, bell, estimator) {
    const wrong = -Math.expm1(Math.log(J) / T), error = -Math.expm1(Math.log(J) / T0);
    const [kind, normalised] = estimator.split("/");
    return [[J, T * bell], [J, T * wrong], [J ** (T / T0), T * error], [J, wrong]].map(([success, curvature]) => {
      if (success < LEAST) return NaN;
      const variance = success * -Math.expm1(Math.log(success));
      const gain = kind === "grpo" ? Math.sqrt(variance) : variance;
      return ((2 * -Math.expm1(Math.log(success))) / (gain * curvature)) * (normalised ? T : 1);
    });
  }

  function make(tag, attributes = {}, ...children) {
    const svg = ["svg", "g", "line", "path", "circle", "text"].includes(tag);
    const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }

  function slider(name, options) {
    const input = make("input", { type: "range", style: "flex:1 1 8em;min-width:6em", ...options });
    const value = make("output", { style: "min-width:3.5em;font-weight:bold" });
    return [make("label", { style: "display:flex;gap:.6em;align-items:center" }, name, input, value), input, value];
  }

  function start(figure) {
    const levels = JSON.parse(figure.dataset.levels), bell = JSON.parse(figure.dataset.bell);
    const [lengthRow, length, lengthValue] = slider("tokens T", { min: FIRST, max: LAST, step: 0.25, value: 8 });
    const middle = levels.indexOf(0.5);
    const [successRow, success, successValue] = slider("success J", { min: 0, max: levels.length - 1, step: 1, value: middle });
    const estimator = make("select", { "aria-label": "estimator" });
    for (const [value, name] of [["grpo", "GRPO"], ["reinforce", "REINFORCE"], ["grpo/T", "GRPO, divided by length"],
      ["reinforce/T", "REINFORCE, divided by length"]]) estimator.append(make("option", { value }, name));
    const plot = make("svg", { role: "img", style: "display:block;width:100%;font-size:13px;color:inherit" });
    const said = make("p", { "aria-live": "polite", style: "margin:.4em 0 0" });
    const note = make("p", { style: "margin:.4em 0 0" },
      "Counting reward: the count of one token must lie in a window that grows as √T. The others: every token must be " +
      "right. Plain gradient steps on one shared parameter, or on one for each token (own parameters): compare slopes, and copy no rate.");
    figure.replaceChildren(lengthRow, successRow, make("label", {}, "estimator ", estimator), plot, said, note);
    Object.assign(figure.style, { border: "1px solid #8888", borderRadius: "6px", padding: "10px", maxWidth: "704px" });
    figure.setAttribute("role", "group");
    figure.setAttribute("aria-label", "Interactive figure: critical learning rate against response length");

    function draw() {
      const e0 = +length.value, k = +success.value, T0 = 2 ** e0, J = levels[k];
      const at = (e) => rates(2 ** e, T0, J, bell[k], estimator.value);
      const here = at(e0), relative = (e) => at(e).map((rate, i) => Math.log10(rate / here[i]));
      lengthValue.textContent = Math.round(T0);
      successValue.textContent = J;

      const width = Math.max(280, plot.clientWidth || 640), height = Math.min(320, Math.max(230, 0.5 * width));
      const x0 = 52, x1 = width - 130, y0 = height - 40, y1 = 28, grid = [];
      for (let e = FIRST; e <= LAST; e += 0.125) grid.push([e, relative(e)]);
      // The third reward bends away without limit, so the others set the range of the axis.
      const ends = [grid[0][1], grid.at(-1)[1]].flatMap((row) => [row[0], row[1], row[3]]);
      const low = Math.min(-1, Math.floor(Math.min(...ends))), high = Math.max(1, Math.ceil(Math.max(...ends)));
      const px = (e) => x0 + ((e - FIRST) / (LAST - FIRST)) * (x1 - x0);
      const py = (v) => y0 - ((v - low) / (high - low)) * (y0 - y1);
      const inside = (v) => v >= low && v <= high;
      const word = (x, y, text, anchor = "middle") => make("text", { x, y, "text-anchor": anchor, fill: "currentColor" }, text);
      const rule = (xa, ya, xb, yb, more = {}) =>
        make("line", { x1: xa, y1: ya, x2: xb, y2: yb, stroke: "currentColor", "stroke-opacity": 0.2, ...more });

      plot.setAttribute("viewBox", `0 0 ${width} ${height}`);
      plot.replaceChildren();
      for (let v = low; v <= high; v++)
        plot.append(rule(x0, py(v), x1, py(v)), word(x0 - 6, py(v) + 4, power(v), "end"));
      for (let e = FIRST; e <= LAST; e += x1 - x0 < 300 ? 4 : 2)
        plot.append(rule(px(e), y0, px(e), y1), word(px(e), y0 + 17, 2 ** e));
      plot.append(rule(px(e0), y0, px(e0), y1, { "stroke-opacity": 0.8, "stroke-dasharray": "4 4" }));
      plot.append(word((x0 + x1) / 2, height - 5, "response length in tokens"));
      plot.append(word(4, 14, `critical rate over that at T = ${Math.round(T0)}`, "start"));

      const labels = REWARDS.map(([name, colour, dashes], i) => {
        const shown = grid.filter(([, row]) => inside(row[i]));
        const path = shown.map(([e, row], n) => `${n ? "L" : "M"}${px(e).toFixed(1)} ${py(row[i]).toFixed(1)}`).join("");
        plot.append(make("path", { d: path, fill: "none", stroke: colour, "stroke-width": 3, "stroke-dasharray": dashes }));
        return { name, colour, y: py(shown.at(-1)[1][i]) };
      }).sort((a, b) => a.y - b.y);
      labels.forEach((label, i) => (label.y = Math.max(label.y, i ? labels[i - 1].y + 17 : y1 + 8)));
      labels.reverse().forEach((label, i) => (label.y = Math.min(label.y, i ? labels[i - 1].y - 17 : y0)));
      for (const { name, colour, y } of labels)
        plot.append(make("circle", { cx: x1 + 9, cy: y - 4, r: 5, fill: colour }), word(x1 + 18, y, name, "start"));
      plot.append(make("circle", { cx: px(e0), cy: py(0), r: 6, fill: "currentColor" }));

      const factors = at(e0 + 1).map((rate, i) =>
        `${REWARDS[i][0]} ${Number.isNaN(rate) ? "has no success left" : `× ${(rate / here[i]).toFixed(2)}`}`);
      said.textContent = `The rate at ${Math.round(2 * T0)} tokens in place of ${Math.round(T0)}: ${factors.join(", ")}.`;
      plot.setAttribute("aria-label", `Lines on logarithmic axes. ${said.textContent}`);
    }

    for (const control of [length, success, estimator]) control.addEventListener("input", draw);
    let seen = 0;
    new ResizeObserver(() => plot.clientWidth !== seen && ((seen = plot.clientWidth), draw())).observe(figure);
    draw();
  }

  const all = () => document.querySelectorAll(".rlvr-critical-rate").forEach(start);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", all);
  else all();
})();
