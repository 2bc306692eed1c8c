// Light, dark, or as the system says: remembered in this browser, decided before the page is painted.
(function () {
  const root = document.documentElement;
  root.classList.add("js");
  let chosen = null;
  try { chosen = localStorage.getItem("headsearch-theme"); } catch (error) { /* a page opened from a file may not remember */ }
  if (chosen === "light" || chosen === "dark") root.dataset.theme = chosen;

  function dark() {
    return root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }
  function tell() {
    document.querySelectorAll(".theme").forEach((button) => {
      button.textContent = dark() ? "Light" : "Dark";
      button.setAttribute("aria-label", dark() ? "Switch to light colours" : "Switch to dark colours");
    });
  }
  document.addEventListener("click", (event) => {
    if (!event.target.closest(".theme")) return;
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("headsearch-theme", root.dataset.theme); } catch (error) { /* as above */ }
    tell();
  });
  document.addEventListener("DOMContentLoaded", tell);
  window.headsearchTheme = tell;
})();
