"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 720px)");

  // "@name" under a key about colour stands for the style sheet's --name.
  const styles = getComputedStyle(document.documentElement);
  const colour = (name) => styles.getPropertyValue("--" + name).trim();
  const paint = (value, key = "") => {
    if (Array.isArray(value)) return value.map((item) => paint(item, key));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, paint(v, k)]));
    }
    const named = typeof value === "string" && value.startsWith("@") && /color/.test(key);
    return named ? colour(value.slice(1)) : value;
  };

  const axis = (given) => ({
    automargin: true, gridcolor: colour("grid"), linecolor: colour("rule"), zeroline: false,
    ...given, title: { standoff: 12, ...given.title },
  });
  const layout = (given, place) => ({
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: colour("sans"), size: narrow.matches ? 12 : 13, color: colour("ink") },
    margin: { l: 56, r: 12, t: 8, b: 48 },
    hovermode: "closest",
    hoverlabel: { align: "left", bgcolor: colour("panel"), bordercolor: colour("rule"), font: { color: colour("ink") } },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("ink-soft"), activecolor: colour("ink"), orientation: "v" },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    showlegend: given.annotations === undefined,
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    height: narrow.matches ? 380 : 440,
    ...given, xaxis: axis(given.xaxis), yaxis: axis(given.yaxis),
    width: place.clientWidth,
  });

  const draw = (place) => {
    const name = place.dataset.chart;
    const chooser = document.querySelector(`select[data-for="${name}"]`);
    let figure = figures[name];
    if (name === "curves") figure = figure[chooser ? chooser.value : Object.keys(figure)[0]];
    const painted = paint(figure);
    Plotly.react(place, painted.data, layout(painted.layout, place), {
      displaylogo: false, responsive: false,
      // Named one by one: the default bar has buttons that lead out of this page.
      modeBarButtons: [["toImage", "resetScale2d"]], displayModeBar: narrow.matches || name === "confusion" ? false : "hover",
    });
  };
  const places = [...document.querySelectorAll("[data-chart]")];
  const drawAll = () => { if (window.Plotly) places.forEach(draw); };
  drawAll();
  dark.addEventListener("change", drawAll);
  addEventListener("resize", (() => {
    let timer;
    return () => { clearTimeout(timer); timer = setTimeout(drawAll, 150); };
  })());
  document.querySelectorAll("select[data-for]").forEach((chooser) => {
    const place = document.querySelector(`[data-chart="${chooser.dataset.for}"]`);
    chooser.addEventListener("change", () => { if (window.Plotly) draw(place); });
  });

  // Tables: a click on a heading sorts; cells without a value stay at the end in both directions.
  document.querySelectorAll("table.sortable").forEach((table) => {
    const headings = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    table.classList.add("ready");
    headings.forEach((heading, column) => {
      const sort = () => {
        const up = heading.getAttribute("aria-sort") !== "ascending";
        const numeric = heading.dataset.kind === "number";
        const key = (row) => {
          const cell = row.cells[column];
          const text = (cell.dataset.value ?? cell.textContent).trim();
          return numeric ? (text === "" ? NaN : Number(text)) : text;
        };
        const compare = (a, b) => {
          const [x, y] = [key(a), key(b)];
          if (!numeric) return (up ? 1 : -1) * x.localeCompare(y, undefined, { numeric: true });
          if (Number.isNaN(x) || Number.isNaN(y)) return Number(Number.isNaN(x)) - Number(Number.isNaN(y));
          return up ? x - y : y - x;
        };
        const rows = [...body.rows].sort(compare);
        const shown = [...body.rows].filter((row) => !row.hidden).length;
        rows.forEach((row, place) => { row.hidden = place >= shown; });
        body.append(...rows);
        headings.forEach((other) => other.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", up ? "ascending" : "descending");
      };
      heading.tabIndex = 0;
      heading.addEventListener("click", sort);
      heading.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
    });
  });
  document.querySelectorAll("button.more").forEach((button) => {
    button.hidden = false;
    button.addEventListener("click", () => {
      document.querySelectorAll("table.sortable tr[hidden]").forEach((row) => { row.hidden = false; });
      button.remove();
    });
  });
  document.querySelectorAll("button.copy").forEach((button) => {
    button.hidden = !navigator.clipboard;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.closest(".commands").querySelector("pre").textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  });
})();
