// Turns the drawn figures of a report into interactive ones. Without this script the page shows the drawn ones.
(() => {
  "use strict";
  const page = JSON.parse(document.getElementById("plots").textContent);
  const hidden = new Set();
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const fine = matchMedia("(pointer: fine)").matches;

  // "var(--role)" anywhere in a plot stands for a colour of the scheme in use
  function coloured(value, style) {
    if (typeof value === "string") {
      return value.startsWith("var(") ? style.getPropertyValue(value.slice(4, -1)).trim() : value;
    }
    if (Array.isArray(value)) return value.map((item) => coloured(item, style));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item, style)]));
  }

  function shown(trace) {
    const series = trace.meta && trace.meta.series;
    return !series || ![].concat(series).every((name) => hidden.has(name));
  }

  function legend(plot) {
    const list = document.createElement("div");
    list.className = "legend";
    for (const trace of plot.data) {
      const swatch = document.createElement("i");
      swatch.style.background = trace.marker.color;
      const entry = document.createElement("span");
      entry.append(swatch, trace.name);
      list.append(entry);
    }
    return list;
  }

  function draw(plot) {
    const style = getComputedStyle(document.documentElement);
    const figure = document.getElementById(plot.id);
    const chart = figure.querySelector(".chart");
    const still = figure.querySelector("svg");
    if (plot.height) chart.style.height = `${plot.height}px`;
    else chart.style.aspectRatio = "4.5 / 3.3";
    chart.hidden = false;
    if (plot.legend && !figure.querySelector(".legend")) chart.before(legend(plot));
    still.style.display = "none";
    const data = coloured(plot.data, style).map((trace) => ({ ...trace, visible: shown(trace) }));
    const layout = { ...coloured(plot.layout, style), autosize: true, dragmode: fine ? "zoom" : false };
    return Plotly.react(chart, data, layout, { displayModeBar: false, responsive: true });
  }

  const drawn = new Set();
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((entry) => entry.isIntersecting)) {
      const plot = page.plots.find((plot) => plot.id === entry.target.id);
      if (drawn.has(plot)) continue;
      drawn.add(plot);
      draw(plot);
    }
    document.documentElement.dataset.ready ??= Math.round(performance.now());
  }, { rootMargin: "300px" });

  function redraw() {
    drawn.forEach(draw);
  }

  // one button for each arm and policy, for all figures at once
  const bar = document.getElementById("series");
  for (const entry of page.series) {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-pressed", "true");
    const swatch = document.createElement("i");
    swatch.style.borderTop = `3px ${entry.dash === "solid" ? "solid" : entry.dash === "dot" ? "dotted" : "dashed"} ${entry.colour}`;
    button.append(swatch, entry.title);
    button.addEventListener("click", () => {
      if (!hidden.delete(entry.series)) hidden.add(entry.series);
      button.setAttribute("aria-pressed", String(!hidden.has(entry.series)));
      redraw();
    });
    bar.append(button);
  }
  bar.hidden = false;
  dark.addEventListener("change", redraw);
  page.plots.forEach((plot) => seen.observe(document.getElementById(plot.id)));
})();
