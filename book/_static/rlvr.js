/* What does not fit its column is made to fit: formulas shrink, tables become cards. */
(() => {
  const SMALLEST = 0.5; // of its size; a formula that is wider still scrolls in its own box

  function roomIn(element) {
    while (!element.clientWidth || element.matches("span")) element = element.parentElement;
    const style = getComputedStyle(element);
    return element.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
  }

  function share(formula) {
    const room = formula.closest("div.math") ? formula.clientWidth : roomIn(formula.parentElement);
    return room / formula.querySelector("mjx-math").getBoundingClientRect().width;
  }

  // From the natural sizes every time, and all of one kind measured before any is changed: the same width of the
  // window always gives the same page, whatever it was before.
  function fit(formulas, tables) {
    for (const formula of formulas) {
      formula.dataset.size ??= parseFloat(formula.style.fontSize) || 100;
      formula.style.fontSize = `${formula.dataset.size}%`;
      formula.classList.remove("rlvr-scrolls");
    }
    tables.forEach((table) => table.classList.remove("rlvr-cards"));
    const wide = tables.filter((table) => {
      const around = table.closest(".pst-scrollable-table-container, .cell_output, td, section, article");
      return table.scrollWidth > around.clientWidth + 1;
    });
    wide.forEach((table) => table.classList.add("rlvr-cards"));
    const shares = formulas.map(share);
    formulas.forEach((formula, at) => {
      if (!(shares[at] < 1)) return;
      const scale = Math.max(SMALLEST, Math.floor(100 * shares[at]) / 100);
      formula.style.fontSize = `${formula.dataset.size * scale}%`;
      formula.classList.toggle("rlvr-scrolls", shares[at] < SMALLEST);
    });
  }

  function label(table) {
    const names = [...table.querySelectorAll("thead tr:last-child > *")].map((cell) => cell.textContent.trim());
    for (const row of table.querySelectorAll("tbody tr"))
      [...row.children].forEach((cell, at) => names[at] && (cell.dataset.label = names[at]));
  }

  async function start() {
    const article = document.querySelector("article");
    if (!article) return;
    await window.MathJax?.startup?.promise;
    const tables = [...article.querySelectorAll("table")].filter((table) => table.tHead);
    const formulas = [...article.querySelectorAll("mjx-container")].filter((f) => f.querySelector("mjx-math"));
    tables.forEach(label);
    const seen = (element) => element.checkVisibility();
    let waiting = 0;
    new ResizeObserver(() => {
      cancelAnimationFrame(waiting);
      waiting = requestAnimationFrame(() => {
        fit(formulas.filter(seen), tables.filter(seen));
        article.dataset.fitted = article.clientWidth;
      });
    }).observe(article); // its width, and its height when a folded part of the page opens
  }

  window.addEventListener("load", start);
})();
