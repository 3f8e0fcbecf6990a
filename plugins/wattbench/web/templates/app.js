// Airflow keeps its theme in localStorage; another document's change reaches us as an event.
const root = document.documentElement;
function theme() {
  let chosen = null;
  try { chosen = localStorage.getItem("theme"); } catch { /* a sandbox without storage */ }
  if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen;
  else delete root.dataset.theme;
}
theme();
addEventListener("storage", (event) => { if (event.key === "theme") theme(); });

// Airflow's frame may not navigate the page around it: that page's own link may.
addEventListener("click", (event) => {
  const link = event.target.closest("a[target=_top]");
  if (!link || window === top) return;
  const outer = top.document.createElement("a");
  outer.href = link.href;
  top.document.body.append(outer);
  event.preventDefault();
  outer.click();
  outer.remove();
});

addEventListener("DOMContentLoaded", () => {
  const live = document.querySelector("[data-live]");
  if (live) {
    const pause = Number(live.dataset.everyMs ?? 5000);
    const refresh = async () => {
      try {
        const answer = await fetch(live.dataset.live, { credentials: "same-origin" });
        if (answer.ok) {
          const part = new DOMParser().parseFromString(await answer.text(), "text/html");
          // A whole page has this part in it; the stages of a run are a part by themselves.
          const fresh = part.querySelector(part.querySelector("main") ? "[data-live]" : "body");
          if (!fresh) { location.reload(); return; }
          live.replaceChildren(...fresh.childNodes);
          if (live.querySelector("[data-over]")) { location.reload(); return; }
        }
      } catch { /* the server restarts: the next try will do */ }
      setTimeout(refresh, pause);
    };
    setTimeout(refresh, pause);
  }
  const frame = document.querySelector("iframe");
  if (frame) frame.addEventListener("load", () => {
    try {
      frame.style.height = `${frame.contentDocument.documentElement.scrollHeight + 2}px`;
    } catch { /* stays as high as the style sheet says */ }
  });
});
