"use strict";
(() => {
  const root = document.documentElement;
  const kept = () => { try { return localStorage.getItem("maft-theme"); } catch { return null; } };
  const keep = (theme) => { try { localStorage.setItem("maft-theme", theme); } catch { /* a file without storage */ } };
  const set = (theme) => { root.dataset.theme = theme; };
  const shown = () => root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  if (["light", "dark"].includes(kept())) set(kept());
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const name = () => { button.textContent = shown() === "dark" ? "Light theme" : "Dark theme"; };
    button.hidden = false;
    button.addEventListener("click", () => { set(shown() === "dark" ? "light" : "dark"); keep(root.dataset.theme); name(); });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
    name();
  });
})();
