/* On paper proofs are open. A link to the glossary shows what its term means, to the pointer and to the keyboard. */
(() => {
  const folded = () => document.querySelectorAll("article details.sd-dropdown:not([open]), article details[data-printed]");
  addEventListener("beforeprint", () => folded().forEach((part) => (part.open = part.dataset.printed = true)));
  addEventListener("afterprint", () => folded().forEach((part) => {
    part.open = false;
    delete part.dataset.printed;
  }));
})();

(() => {
  const links = document.querySelectorAll("article a[data-term]");
  if (!links.length) return;
  const tip = document.createElement("div");
  tip.id = "rlvr-tip";
  tip.setAttribute("role", "tooltip");
  tip.hidden = true;
  document.body.append(tip);
  let open = null, leaving = 0;

  function show(link) {
    clearTimeout(leaving);
    hide();
    open = link;
    tip.textContent = link.dataset.term;
    tip.hidden = false;
    link.setAttribute("aria-describedby", tip.id);
    const box = link.getClientRects()[0], room = document.documentElement.clientWidth;
    const left = Math.max(8, Math.min(box.left, room - tip.offsetWidth - 8));
    const above = box.top - tip.offsetHeight - 6;
    tip.style.left = `${left + scrollX}px`;
    tip.style.top = `${(above > 70 ? above : box.bottom + 6) + scrollY}px`; // 70 px: the bar at the top
  }

  function hide() {
    open?.removeAttribute("aria-describedby");
    open = null;
    tip.hidden = true;
  }

  const later = () => (leaving = setTimeout(hide, 200)); // time to move onto the words and select them
  for (const link of links) {
    link.addEventListener("mouseenter", () => show(link));
    link.addEventListener("mouseleave", later);
    link.addEventListener("focus", () => show(link));
    link.addEventListener("blur", hide);
  }
  tip.addEventListener("mouseenter", () => clearTimeout(leaving));
  tip.addEventListener("mouseleave", later);
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
})();
