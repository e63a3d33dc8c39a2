// Keeps the page up to date with what the daemon would serve now, and asks for rotations. Nothing is stored.
"use strict";
const every = 3000; // milliseconds
const find = (id) => document.getElementById(id);
const filter = find("filter");
const dialog = find("dialog");
let timer, asked = 0;

// exchange puts a part of the page, as the daemon's templates made and escaped it, in place of what was there.
const have = {};
function exchange(id, part) {
  if (have[id] === part) return;
  have[id] = part;
  const here = find(id);
  const focused = here.contains(document.activeElement) ? document.activeElement.id : "";
  here.innerHTML = part;
  if (focused) find(focused)?.focus({ preventScroll: true });
}

async function refresh() {
  clearTimeout(timer);
  const turn = ++asked;
  try {
    const answer = await fetch("/page.json" + location.search, { signal: AbortSignal.timeout(10000) });
    if (!answer.ok) throw new Error(answer.statusText);
    const parts = await answer.json();
    if (turn !== asked) return; // a later one is under way
    for (const id in parts) exchange(id, parts[id]);
    find("stale").hidden = true;
  } catch {
    if (turn !== asked) return;
    find("stale").hidden = false;
  }
  timer = setTimeout(refresh, every);
}

let typing;
function narrow() {
  clearTimeout(typing);
  typing = setTimeout(() => {
    history.replaceState(null, "", "/?" + new URLSearchParams(new FormData(filter)));
    refresh();
  }, 200);
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

document.documentElement.classList.add("js");
filter.addEventListener("input", narrow);
filter.addEventListener("submit", (event) => { event.preventDefault(); narrow(); });
document.addEventListener("visibilitychange", () => document.hidden ? clearTimeout(timer) : refresh());
if (dialog) {
  find("rows").addEventListener("click", (event) => {
    const button = event.target.closest(".rotate");
    if (!button) return;
    dialog.dataset.policy = find("dialog-policy").textContent = button.dataset.policy;
    find("outcome").textContent = "";
    dialog.showModal();
  });
  find("rotation").addEventListener("submit", rotate);
  find("cancel").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => { find("rotation").reset(); find("rotate-" + dialog.dataset.policy)?.focus(); });
}
timer = setTimeout(refresh, every);
