// Draws the figures of a report when they come into sight, opens a head that is chosen, and sorts and filters the table of trials.
(function () {
  function draw(plot) {
    if (plot.dataset.drawn) return;
    plot.dataset.drawn = "yes";
    const source = plot.querySelector("script");
    const figure = JSON.parse(source.textContent);
    source.remove();
    Plotly.newPlot(plot, figure.data, figure.layout, figure.config).then(() => {
      plot.on("plotly_click", (event) => {
        const told = event.points[0].customdata;
        if (!told) return;
        const id = document.createElement("textarea");
        id.innerHTML = told[0];
        const section = document.getElementById("head-" + encodeURIComponent(id.value));
        if (section) location.hash = section.id;
      });
    });
  }
  const watcher = new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => draw(entry.target)),
    { rootMargin: "400px" },
  );
  document.querySelectorAll(".plot").forEach((plot) => watcher.observe(plot));
  addEventListener("beforeprint", () => document.querySelectorAll(".plot").forEach(draw));

  function open() {
    const target = document.getElementById(decodeURI(location.hash.slice(1))) || document.getElementById(location.hash.slice(1));
    const details = target && target.closest("details.head");
    if (details) details.open = true;
    if (target) target.scrollIntoView();
  }
  addEventListener("hashchange", open);
  if (location.hash) open();

  const table = document.getElementById("trials-table");
  if (!table) return;
  const body = table.tBodies[0];
  function key(row, column) {
    const text = row.cells[column].textContent.trim();
    const number = parseFloat(text.replace(/[,+]/g, ""));
    return text === "-" ? null : Number.isNaN(number) ? text : number;
  }
  table.querySelectorAll("thead th").forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows].map((row) => [key(row, column), row]);
      rows.sort(([a], [b]) => (a === null) - (b === null) || (a < b ? -1 : a > b ? 1 : 0) * (down ? -1 : 1));
      body.append(...rows.map(([, row]) => row));
    });
  });
  const label = document.createElement("label");
  const field = document.createElement("input");
  field.type = "search";
  label.append("Show trials with ", field);
  document.getElementById("filter").append(label);
  field.addEventListener("input", () => {
    const wanted = field.value.toLowerCase();
    for (const row of body.rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
})();
