/* The ledger's filter: kept in the address, so that what it shows can be linked; a link to a claim opens its row. */
(() => {
  const rows = [...document.querySelectorAll("details.rlvr-row")];
  if (!rows.length) return;
  const groups = [...document.querySelectorAll("details.rlvr-group")];
  const NAMES = ["chapter", "testbed", "outcome", "verdict", "kind", "lane"];
  const values = (row, name) => (row.dataset[name] || "").split(" ").filter(Boolean);
  const form = document.createElement("form");
  form.className = "rlvr-filter dropdown";
  form.setAttribute("role", "search");
  const field = (name, control) => {
    const label = document.createElement("label");
    control.name = name;
    label.append(`${name} `, control);
    form.append(label);
  };
  for (const name of NAMES) {
    const select = document.createElement("select");
    const found = [...new Set(rows.flatMap((row) => values(row, name)))].sort();
    select.append(new Option("any", ""), ...found.map((value) => new Option(value.replace("-", " "), value)));
    field(name, select);
  }
  const words = document.createElement("input");
  words.type = "search";
  field("words", words);
  const count = document.createElement("output");
  count.setAttribute("aria-live", "polite");
  form.append(count);
  groups[0].closest("section").before(form);

  function apply() {
    const wanted = [...new FormData(form)].filter(([, value]) => value.trim());
    const tests = wanted.map(([name, value]) => name === "words"
      ? (row) => value.toLowerCase().split(/\s+/).every((word) => `${row.id} ${row.textContent}`.toLowerCase().includes(word))
      : (row) => values(row, name).includes(value));
    for (const row of rows) row.hidden = !tests.every((test) => test(row));
    for (const group of groups) {
      const any = [...group.querySelectorAll("details.rlvr-row")].some((row) => !row.hidden);
      group.closest("section").hidden = !any;
      group.open = any && tests.length > 0;
    }
    count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} claims shown`;
    return wanted;
  }

  function change() {
    const query = new URLSearchParams(apply()).toString();
    history.replaceState(null, "", query ? `?${query}` : location.pathname);
  }

  function open() {
    const row = rows.find((one) => `#${one.id}` === decodeURIComponent(location.hash));
    if (!row) return;
    if (row.hidden) { form.reset(); apply(); }
    row.closest("details.rlvr-group").open = row.open = true;
    row.scrollIntoView();
  }

  for (const [name, value] of new URLSearchParams(location.search)) if (form.elements[name]) form.elements[name].value = value;
  form.addEventListener("input", change);
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", open);
  addEventListener("beforeprint", () => [...groups, ...rows].forEach((part) => (part.open = true)));
  apply();
  open();
})();
