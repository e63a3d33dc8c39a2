// Keeps the page up to date with what the daemon would serve now, and asks for rotations. Nothing is stored.
"use strict";
const every = Number(document.body.dataset.every ?? 3000); // milliseconds
const find = (id) => document.getElementById(id);
const filter = find("filter");
const dialog = find("dialog");
let timer, typing, asked = 0;

// exchange puts the part that the daemon has made and escaped in place of what is here, unless the user has marked text in it.
function exchange(here, part) {
  const marked = getSelection();
  if (here.innerHTML === part.innerHTML || !marked.isCollapsed && here.contains(marked.anchorNode)) return;
  const focused = here.contains(document.activeElement) ? document.activeElement : null;
  const again = focused?.id ? "#" + CSS.escape(focused.id) : focused?.hasAttribute("href") && `[href="${CSS.escape(focused.getAttribute("href"))}"]`;
  here.replaceChildren(...part.childNodes);
  if (again) here.querySelector(again)?.focus({ preventScroll: true });
}

async function refresh() {
  clearTimeout(timer);
  const turn = ++asked;
  let served = null;
  try {
    const answer = await fetch(location.href, { signal: AbortSignal.timeout(10000) });
    if (answer.ok) served = new DOMParser().parseFromString(await answer.text(), "text/html");
  } catch { /* it is said below */ }
  if (turn !== asked) return; // a later one is under way
  find("stale").hidden = served !== null;
  if (served) {
    for (const here of document.querySelectorAll("[data-live]")) {
      const part = served.getElementById(here.id);
      if (part) exchange(here, part);
    }
  }
  timer = setTimeout(refresh, every);
}

function narrow() {
  clearTimeout(typing);
  typing = setTimeout(() => {
    const chosen = [...new FormData(filter)].filter(([, value]) => value);
    history.replaceState(null, "", location.pathname + (chosen.length ? "?" + new URLSearchParams(chosen) : ""));
    refresh();
  }, 200);
}

document.documentElement.classList.add("js");
document.addEventListener("visibilitychange", () => document.hidden ? clearTimeout(timer) : refresh());
if (filter) {
  filter.addEventListener("input", narrow);
  filter.addEventListener("submit", (event) => { event.preventDefault(); narrow(); });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
    event.preventDefault();
    filter.elements.q.select();
  });
}

async function rotate(event) {
  event.preventDefault();
  const { token, reason, revoke } = event.target.elements;
  const secret = token.value;
  token.value = "";
  find("outcome").textContent = "Asking…";
  try {
    const answer = await fetch(`/api/v1/policies/${dialog.dataset.policy}/rotate`, {
      method: "POST",
      headers: { "Rekeyd-Admin-Token": secret, "Content-Type": "application/json" },
      body: JSON.stringify({ revoke_now: revoke.checked, reason: reason.value }),
    });
    if (!answer.ok) throw new Error(await answer.text());
    dialog.close();
    refresh();
  } catch (err) {
    find("outcome").textContent = err.message;
    token.focus();
  }
}

if (dialog) {
  find("rotation").addEventListener("submit", rotate);
  find("cancel").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => { find("rotation").reset(); find("rotate")?.focus(); });
}
document.addEventListener("click", (event) => {
  if (event.target.id === "rotate") {
    find("outcome").textContent = "";
    dialog.showModal();
  }
  const copied = event.target.closest(".copy")?.previousElementSibling;
  if (!copied) return;
  getSelection().selectAllChildren(copied); // and where there is no clipboard, over plain HTTP, it is marked at least
  navigator.clipboard?.writeText(copied.textContent).then(() => { find("copied").textContent = "Copied " + copied.textContent; }, () => {});
});
timer = setTimeout(refresh, every);
