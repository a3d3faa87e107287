// What is wider than its place scrolls in a box of its own. Such a box can be reached and moved by keyboard, and fades
// where it goes on. A formula is one already: MathJax lets it be reached.
const BOXES = "article figure, article .pst-scrollable-table-container, div.cell_output, div.cell_output > .output, article pre";

function look(box) {
  const rest = box.scrollWidth - box.clientWidth;
  box.classList.toggle("goes-on", rest > 1 && box.scrollLeft < rest - 1);
  if (rest > 1 && !box.matches("mjx-container")) box.tabIndex = 0;
}

// A formula on a line of its own shrinks to fit, but not below what can be read. What is wider still scrolls.
function shrink(formula) {
  const size = Math.max(0.75, formula.clientWidth / formula.scrollWidth);
  if (size < 1) formula.style.fontSize = `${parseFloat(getComputedStyle(formula).fontSize) * size}px`;
}

// A formula within a sentence cannot be broken. Where it is wider than its paragraph, it gets a line and a box.
function place(formulas) {
  const wide = formulas.filter((one) => one.scrollWidth > (one.closest("p, li, dd")?.clientWidth ?? Infinity));
  wide.forEach((one) => one.classList.add("wide"));
  return wide;
}

document.addEventListener("DOMContentLoaded", async () => {
  for (const entry of document.querySelectorAll(".citation-list > [role=doc-biblioentry]")) entry.role = "listitem";
  const seen = new ResizeObserver((entries) => entries.forEach((entry) => look(entry.target)));
  const watch = (box) => {
    box.addEventListener("scroll", () => look(box), { passive: true });
    seen.observe(box);
  };
  document.querySelectorAll(BOXES).forEach(watch);
  await window.MathJax?.startup?.promise;
  document.querySelectorAll("div.math > mjx-container").forEach((one) => (shrink(one), watch(one)));
  place([...document.querySelectorAll("article span.math")]).forEach(watch);
});
