"use strict";
// Tables: click a heading to sort, copy as tab-separated text. Every page is complete without this.
const plain = (cell) => (cell ? cell.innerText : "").trim();
const value = (text) => {
  const digits = text.replace(/[\s\u202f,]/g, "").replace("−", "-").replace("<", "");
  return /^[+-]?[\d.]/.test(digits) ? parseFloat(digits) : NaN;
};
function compare(a, b) {
  const [x, y] = [value(a), value(b)];
  if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
  return Number.isNaN(x) ? a.localeCompare(b) : x - y;
}
function sort(table, column, heading) {
  const body = table.tBodies[0];
  const up = heading.getAttribute("aria-sort") !== "ascending";
  const rows = [...body.rows].sort((a, b) => {
    const [x, y] = [plain(a.cells[column]), plain(b.cells[column])];
    const empty = (x === "–") - (y === "–");
    return empty || (up ? compare(x, y) : compare(y, x));
  });
  for (const other of table.querySelectorAll("thead th[aria-sort]")) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", up ? "ascending" : "descending");
  body.replaceChildren(...rows);
}
function text(table) {
  return [...table.rows].map((row) => [...row.cells].map((c) => plain(c).replace(/\s+/g, " ")).join("\t")).join("\n");
}
async function copy(table, button) {
  try {
    await navigator.clipboard.writeText(text(table));
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(table);
    button.textContent = "Selected: copy it with the keyboard";
  }
}
for (const table of document.querySelectorAll("table.data")) {
  [...table.tHead.rows[table.tHead.rows.length - 1].cells].forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sort(table, column, heading));
    heading.append(button);
  });
  const tools = table.closest(".scroll")?.nextElementSibling;
  if (tools?.classList.contains("tools")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.addEventListener("click", () => copy(table, button));
    tools.prepend(button);
    tools.hidden = false;
  }
}
// Any two images: one row of the tables of pairs at a time.
for (const form of document.querySelectorAll("form.pick")) {
  const rows = [...document.querySelectorAll(`#${form.dataset.rows} tr[data-a]`)];
  const [a, b] = form.querySelectorAll("select");
  const show = () => {
    for (const row of rows) row.hidden = !(row.dataset.a === a.value && row.dataset.b === b.value);
    form.querySelector("output").textContent = a.value === b.value ? "Pick two different images." : "";
  };
  form.addEventListener("change", show);
  form.hidden = false;
  show();
}
// A link into a folded part opens it; paper shows the parts that are open on screen.
function unfold() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let e = target; e; e = e.parentElement) if (e.tagName === "DETAILS") e.open = true;
  if (target) target.scrollIntoView();
}
addEventListener("hashchange", unfold);
unfold();
